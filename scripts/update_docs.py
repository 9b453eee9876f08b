"""Write the files that are generated from the code: `ireu.toml.example`, `docs/commands.md` and `docs/systems.md`."""

import contextlib
import io
from pathlib import Path

from ireu_cli.cli.app import main as ireu
from ireu_cli.config import example_toml
from ireu_cli.encoders.systems import GROUPS, SYSTEMS
from ireu_cli.inspecting.systems import list_systems

SYSTEMS_PAGE = """# Which generators read what

`scripts/update_docs.py` generates this page from `ireu_cli.encoders.systems`. `ireu inspect --systems` prints the same;
with `--json` it prints it for scripts.

A *system* is a [generator](glossary.md#encoders-and-generators) or a family of them. `--for` takes its name. The column
*reads* gives the [tap](glossary.md#encoders-and-generators) and the encoder. Identity can enter a system through more
than one of them:

| a system is | when |
|---|---|
| *covered* | the edit reaches all of them |
| *half covered* | the edit reaches one and not another |
| *not covered* | the edit reaches none |
| *by a gate only* | it has none; [a gate](generators.md#generators-without-an-identity-encoder) can read the photo |
| *out of reach* | ireu does not edit the encoder that it has, or no photo gets in at all |

`unlearn`, `verify` and `export` say which of these holds, for every system that mounts the encoder.

| `--for` | system | reads | covered by |
|---|---|---|---|
{systems}

## Groups

The systems of one group mount the same file. ireu recognises the encoder in a file by its sizes and layout. It cannot
know whether the weights are the published ones; you have to. Where sizes do not tell the group, set `encoder.groups`.

| group | encoder | file | edited by ireu |
|---|---|---|---|
{groups}

## Sources

What a system reads was looked up in its code, at GitHub, at the commit behind the `@`.

| `--for` | source |
|---|---|
{sources}
"""
ROOT = Path(__file__).parent.parent
COMMANDS = ("inspect", "locate", "unlearn", "verify", "export", "apply", "check", "cases", "samples")


def commands_page() -> str:
    """The reference page: the help of every command."""
    parts = ["# Commands\n\n`scripts/update_docs.py` generates this page from the commands themselves.\n", _help([])]
    return "\n".join([*parts, *(_help([command]) for command in COMMANDS)])


def systems_page() -> str:
    """The coverage table: every system, what it reads, and what covers it."""
    rows = []
    for entry in list_systems():
        reads = [f"{read['what']}{'' if read['edited'] else ' (not edited by ireu)'}" for read in entry["reads"]]
        covered = {
            "yes": "an edit of it" if len(reads) == 1 else "edits of both",
            "in part": "one channel alone",
            "by a gate only": f"a gate only: the photo enters {entry['enters']}",
            "no": "no" if reads else "nothing: no identity encoder",
        }[entry["within_reach"]]
        remark = f"; {entry['remark']}" if entry["remark"] else ""
        rows.append(f"| `{entry['system']}` | {entry['title']}{remark} | {'<br>'.join(reads) or '–'} | {covered} |")
    groups = [
        f"| {name} | {group.title} | {group.file} | {'yes' if group.edited else f'no: {group.why_not}'} |"
        for name, group in GROUPS.items()
    ]
    sources = [f"| `{name}` | {system.source} |" for name, system in SYSTEMS.items() if system.source]
    return SYSTEMS_PAGE.format(systems="\n".join(rows), groups="\n".join(groups), sources="\n".join(sources))


def _help(arguments: list[str]) -> str:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        ireu([*arguments, "--help"])
    title = " ".join(["ireu", *arguments])
    lines = "\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines())
    return f"## {title}\n\n```\n{lines}\n```\n"


if __name__ == "__main__":
    (ROOT / "ireu.toml.example").write_text(example_toml())
    (ROOT / "docs" / "commands.md").write_text(commands_page())
    (ROOT / "docs" / "systems.md").write_text(systems_page())
