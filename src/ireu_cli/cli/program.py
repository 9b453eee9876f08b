"""The Typer application with all commands."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ireu_cli import __version__
from ireu_cli.cli import batch, commands, served


class _Group(TyperGroup):
    """Lists the commands with their whole first sentence, which Typer would cut at the end of the line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the section of the commands."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, _sentence(command.help or "")) for name, command in found if command and not command.hidden]
            )


def _sentence(text: str) -> str:
    """The first paragraph, as one line."""
    return " ".join(text.split("\n\n")[0].split())


# Rich help is switched off: it would triple the time of `--help`, and tracebacks with locals would print face data.
app = typer.Typer(
    name="ireu",
    cls=_Group,
    help="Make image generators unable to draw a particular person, by editing their image encoder.",
    no_args_is_help=True,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _command in (
    commands.inspect,
    commands.locate,
    commands.unlearn,
    commands.verify,
    commands.export,
    commands.apply,
    batch.batch,
    served.check,
    served.deploy,
    served.cases,
    commands.samples,
):
    app.command()(_command)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"ireu {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Make image generators unable to draw a particular person, by editing their image encoder."""
