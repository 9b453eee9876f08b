"""stdout: the result, a path or one JSON object. stderr: everything else."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from ireu_cli.config import Resolved
    from ireu_cli.report import Report
    from ireu_cli.workflow.session import StepResult


class Terminal:
    """Talks to the user on stderr; silent under `--quiet`, no bars when stderr is not a terminal."""

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        """Args: `quiet` silences all but errors; `verbose` adds where each value came from."""
        self.quiet = quiet
        self.verbose = verbose

    def note(self, text: str) -> None:
        """One line of talk."""
        if not self.quiet:
            print(text, file=sys.stderr)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """A bar with remaining time and speed; on anything but a terminal, nothing."""
        if self.quiet or not sys.stderr.isatty() or total == 0:
            yield _nothing
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[words]}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=total, words="", speed="")

            def advance(count: int, words: str) -> None:
                bar.update(task, advance=count, words=words)
                bar.update(task, speed=speed_of(bar.tasks[0].speed, label))

            yield advance

    def sources(self, resolved: "Resolved") -> None:
        """Under `-v`, every value with its source."""
        if not self.verbose or self.quiet:
            return
        plain = resolved.config.model_dump(mode="json")
        for key, source in resolved.sources.items():
            section, _, name = key.rpartition(".")
            value = plain[section][name] if section else plain[name]
            self.note(f"{key} = {json.dumps(value)}  ({source})")

    def result(self, result: "StepResult", *, as_json: bool) -> None:
        """Print the result: the artifact's path, or one JSON object."""
        if result.reused:
            self.note(f"{result.artifact} is already complete; nothing to do")
        if as_json:
            print(json.dumps(_summary(result), sort_keys=True))
        else:
            print(result.artifact)

    def path(self, path: "Path") -> None:
        """Print a path as the whole result."""
        print(path)

    def report(self, report: "Report") -> None:
        """Show the outcome with what it does not rest on, settings that are not the default, and what was found."""
        if self.quiet:
            return
        called = report.standing or report.outcome
        _, _, rest = called.partition(" ")
        self.note(f"{report.outcome.upper()}{f' {rest}' if rest else ''}: {report.reason}")
        for one in report.departures or ():
            effect = "" if one.effect == "no order" else f", {one.effect}"
            self.note(f"  {one.key} = {one.words} ({one.source}; default {one.usual}{effect})")
        for control in report.controls:
            if not control.met:
                name = _named(control.name, control.generator, control.measure)
                sense = "more than" if control.name == "no_op_fails" else "at least"
                found = f"{_figure(control.found, control.needed):>12}  {sense} {control.needed:g}"
                self.note(f"  {'not met':<12} {name:<23} {found}")
        for criterion in report.criteria:
            if report.outcome == "inconclusive" and criterion.outcome == "pass":
                continue
            name = _named(criterion.name, criterion.generator)
            found = f"{_figure(criterion.found, criterion.threshold):>12}  {criterion.sense} {criterion.threshold:g}"
            self.note(f"  {criterion.outcome:<12} {name:<23} {found}")
        for text in report.not_measured:
            self.note(f"  not measured: {text}")

    def card(self, card: Mapping[str, Any], *, as_json: bool) -> None:
        """Print what an encoder is."""
        if as_json:
            print(json.dumps(card, sort_keys=True))
            return
        for name, value in card.items():
            lines = [f"{key}: {_words(part)}" for key, part in value.items()] if isinstance(value, dict) else [value]
            for number, line in enumerate(lines or ["none known"]):
                print(f"{'' if number else name.replace('_', ' '):<13} {line}")

    def systems(self, systems: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
        """Print every system and what it reads."""
        if as_json:
            print(json.dumps(systems, sort_keys=True))
            return
        width = max(len(entry["system"]) for entry in systems)
        for entry in systems:
            reads = " + ".join(channel["what"] for channel in entry["reads"]) or "no identity encoder"
            print(f"{entry['system']:<{width}}  {entry['within_reach']:<7}  {entry['title']}: {reads}")

    def error(self, text: str, *, as_json: bool, code: int) -> None:
        """Say what went wrong; under `--json`, stdout still gets one object."""
        print(f"ireu: {text}", file=sys.stderr)
        if as_json:
            self.json_error(text, code=code)

    def json_error(self, text: str, *, code: int) -> None:
        """The one object on stdout in place of a result."""
        print(json.dumps({"error": text, "exit_code": code}, sort_keys=True))


def _named(name: str, generator: str | None, measure: str | None = None) -> str:
    """A control or criterion with the generator and the recogniser that it is about."""
    return f"{generator + ': ' if generator else ''}{name}{' by ' + measure if measure else ''}"


def _figure(value: float | None, limit: float) -> str:
    """A figure that was found, never rounded to the limit that it does not reach."""
    from ireu_cli.report import rounded

    return "not measured" if value is None else rounded(value, 3, limit)


def _words(value: Any) -> str:
    """A list in words."""
    return (", ".join(value) or "nothing known") if isinstance(value, list) else str(value)


def _nothing(_count: int, _words: str) -> None:
    """Stand in for a bar that is not shown."""


def _summary(result: "StepResult") -> Mapping[str, Any]:
    manifest = result.manifest
    return {
        "step": manifest.step,
        "artifact": str(result.artifact),
        "state": manifest.state,
        "reused": result.reused,
        "digest": manifest.digest,
        "encoder": manifest.encoder.fingerprint,
        "tap": manifest.encoder.tap,
        "metrics": manifest.metrics,
        "outputs": [record.model_dump() for record in manifest.outputs],
        **({"report": result.report.model_dump(mode="json")} if result.report else {}),
    }


def speed_of(speed: float | None, label: str) -> str:
    """How much is done in a second, such as `3.1 photos/s`; slow work in minutes."""
    if not speed:
        return ""
    unit = next((unit for unit in ("photos", "pictures") if unit in label), "steps")
    return f"{speed:.1f} {unit}/s" if speed >= 1 else f"{60 * speed:.1f} {unit}/min"
