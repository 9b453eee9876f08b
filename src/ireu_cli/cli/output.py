"""Print the result on stdout, as a path or one JSON object, and everything else on stderr.

All text passes through `escaped`: names, paths and library messages may come from somebody else's file.
"""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from ireu_cli.cli import signals
from ireu_cli.errors import UserError
from ireu_cli.support.bounded import escaped
from ireu_cli.support.pace import Pace, span

if TYPE_CHECKING:
    from pathlib import Path

    from ireu_cli.applying.run import Applied
    from ireu_cli.config import Resolved
    from ireu_cli.opening import StepResult
    from ireu_cli.report import Report


def say(text: str) -> None:
    """Print a line on stderr. If nobody can read it, the work goes on."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(escaped(text), file=sys.stderr, flush=True)


def emit(text: str) -> None:
    """Print the result on stdout.

    Raises:
        UserError: it cannot be written. A reader that has gone away is not an error.
    """
    try:
        try:
            print(text, flush=True)
        except UnicodeError:
            print(escaped(text).encode("ascii", "backslashreplace").decode(), flush=True)
        # Only the end of the process follows.
        signals.finish()
    except BrokenPipeError:
        drop(sys.stdout)
    except OSError as error:
        drop(sys.stdout)
        raise UserError(
            f"The result cannot be written to stdout ({error.strerror or type(error).__name__})",
            "Send stdout somewhere else and run the command again; finished work is kept",
        ) from error


def drop(stream: Any) -> None:
    """Redirect a stream that cannot be written to nowhere, so that Python does not fail on it when it exits."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class Terminal:
    """Talks to the user on stderr: silent under `--quiet`, without bars when stderr is not a terminal."""

    def __init__(self, *, quiet: bool, verbose: bool, clock: Callable[[], float] = monotonic) -> None:
        """Args: `quiet` silences all but errors; `verbose` adds sources, paths and causes; `clock` gives seconds."""
        self.quiet = quiet
        self.verbose = verbose
        self._clock = clock
        self._free = threading.Lock()

    def note(self, text: str) -> None:
        """Print one line."""
        if not self.quiet:
            say(text)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """Show the progress of a loop and the time left: a bar, or without a terminal a line now and then."""
        pace = Pace(total, self._clock)
        # Some loops run in threads of their own.
        turn = threading.Lock()
        with self._shown(label, pace) as show:

            def advance(count: int, words: str) -> None:
                # A run that was asked to stop stops here, between two items.
                signals.check()
                with turn:
                    pace.advance(count)
                    show(words)

            yield advance

    @contextmanager
    def _shown(self, label: str, pace: Pace) -> Iterator[Callable[[str], None]]:
        if self.quiet or pace.total == 0:
            yield _nothing
        # A terminal has room for one bar; loops that run beside it print lines.
        elif not _is_terminal(sys.stderr) or not self._free.acquire(blocking=False):
            yield self._lines(label, pace)
        else:
            try:
                with _bar(label, pace) as show:
                    yield show
            finally:
                self._free.release()

    def _lines(self, label: str, pace: Pace) -> Callable[[str], None]:
        def show(words: str) -> None:
            if pace.is_due():
                self.note(pace.line(label, words))

        return show

    def sources(self, resolved: "Resolved") -> None:
        """Under `-v`, print every setting with its source."""
        if not self.verbose or self.quiet:
            return
        plain = resolved.config.model_dump(mode="json")
        for key, source in resolved.sources.items():
            section, _, name = key.rpartition(".")
            value = plain[section][name] if section else plain[name]
            self.note(f"{key} = {json.dumps(value)}  ({source})")

    def result(self, result: "StepResult", *, as_json: bool) -> None:
        """Print the result: the artifact's path, or one JSON object."""
        self._ended(result, result.reused, _about(result) if as_json else None)

    def applied(self, applied: "Applied", *, as_json: bool) -> None:
        """Print what became of stored embeddings: the path, or one JSON object."""
        self.note(f"{applied.changed} of {applied.embeddings} embeddings change")
        about = {"embeddings": applied.embeddings, "changed": applied.changed}
        self._ended(applied, applied.is_reused, about if as_json else None)

    def _ended(self, ended: "StepResult | Applied", reused: bool, about: Mapping[str, Any] | None) -> None:
        """Print the artifact's path, or one JSON object: what is told about every artifact, and about this one."""
        if reused:
            self.note(f"{ended.artifact} is already complete; there is nothing to do")
        if about is None:
            self.path(ended.artifact)
            return
        told = {
            "step": ended.manifest.step,
            "artifact": str(ended.artifact),
            "reused": reused,
            "digest": ended.manifest.digest,
            "encoder": ended.manifest.encoder.fingerprint,
            "outputs": [record.model_dump() for record in ended.manifest.outputs],
        }
        emit(_json({**told, **about}))

    def part(self, shard: str, left: int, *, as_json: bool) -> None:
        """Say that a part of the work is done, and how many shards of the present stage others have to do."""
        if as_json:
            emit(_json({"state": "partial", "shard": shard, "shards_left": left}))
        elif left:
            self.note(f"part {shard} is done as far as it goes; others have to do {left} more shards of this stage")
        else:
            self.note(f"part {shard} is done, and so are the others: run the command without --shard")

    def path(self, path: "Path") -> None:
        """Print a path as the whole result: byte for byte for a script, escaped for a terminal."""
        emit(escaped(str(path)) if _is_terminal(sys.stdout) else str(path))

    def report(self, report: "Report") -> None:
        """Show the outcome, what it does not rest on, settings that differ from the default, and the figures."""
        if self.quiet:
            return
        called = report.standing or report.outcome
        _, _, rest = called.partition(" ")
        self.note(f"{report.outcome.upper()}{f' {rest}' if rest else ''}: {report.reason}")
        if report.summary is not None:
            self.note(f"In short: {report.summary}")
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
        for step in report.next_steps:
            self.note(f"  next: {step}")

    def card(self, card: Mapping[str, Any], *, as_json: bool) -> None:
        """Print what an encoder is."""
        if as_json:
            emit(_json(card))
            return
        found = []
        for name, value in card.items():
            lines = value if isinstance(value, list) else [value]
            if isinstance(value, dict):
                lines = [f"{key}: {_words(part)}" for key, part in value.items()]
            for number, line in enumerate(lines or ["none" if isinstance(value, list) else "none known"]):
                found.append(f"{'' if number else name.replace('_', ' '):<13} {line}")
        emit("\n".join(map(escaped, found)))

    def cases(self, told: Mapping[str, Any], *, as_json: bool) -> None:
        """Print a register: whether it is whole, and a line for each case."""
        lines = [f"register: {told['register']}, {told['entries']} entries", *told["faults"]]
        for case, one in told["cases"].items():
            for encoder, place in one["encoders"].items():
                parts = [f"{place['state']} from {encoder[:12] or 'unknown'} since {place['since']}"]
                parts += [f"{word} {place[word]}" for word in ("exported", "verified") if place[word]]
                lines.append(f"{case}  {', '.join(parts)}")
            lines += [f"{case}  DUE: {words}" for words in one["due"]]
        _either(told, lines, as_json=as_json)

    def batch(self, told: Mapping[str, Any], *, as_json: bool) -> None:
        """Print what became of every case, and of the whole."""
        lines = [f"{case}  {one['action']}: {one['state']}" for case, one in told["cases"].items()]
        lines += [f"{case}  {one['why']}" for case, one in told["cases"].items() if "why" in one]
        ends = ("verification", "why", "delta", "export")
        lines += [f"{name:<13} {told[name]}" for name in ends if told[name] is not None]
        _either(told, lines, as_json=as_json)

    def systems(self, systems: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
        """Print every system and what it reads."""
        if as_json:
            emit(_json(systems))
            return
        width = max(len(entry["system"]) for entry in systems)
        found = []
        for entry in systems:
            nothing = (
                f"no identity encoder; the photo enters {entry['enters']}" if entry["enters"] else "no identity encoder"
            )
            reads = " + ".join(channel["what"] for channel in entry["reads"]) or nothing
            found.append(f"{entry['system']:<{width}}  {entry['within_reach']:<14}  {entry['title']}: {reads}")
        emit("\n".join(map(escaped, found)))

    def usage(self, text: str, *, as_json: bool, code: int) -> int:
        """Say what is wrong with the command line, in lines; returns the exit code."""
        for line in text.split("\n"):
            say(line)
        if as_json:
            self.json_error("The command line cannot be read; stderr says why", code=code)
        return code

    def error(self, text: str, *, as_json: bool, code: int) -> None:
        """Say what went wrong; under `--json`, stdout still gets one object."""
        say(f"ireu: {text}")
        if as_json:
            self.json_error(text, code=code)

    def json_error(self, text: str, *, code: int) -> None:
        """Print the one object on stdout that stands for a result."""
        # If stdout itself fails, stderr has already said so.
        with contextlib.suppress(UserError):
            emit(_json({"error": escaped(text), "exit_code": code}))


@contextmanager
def _bar(label: str, pace: Pace) -> Iterator[Callable[[str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    # Brackets are not markup here: the words may be a name from a file.
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        TextColumn("{task.fields[speed]}", markup=False),
        TextColumn("{task.fields[words]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escaped(label), total=pace.total, words="", speed="", left="")

        def show(words: str) -> None:
            left = "" if pace.left is None else f"about {span(pace.left)} left"
            bar.update(task, completed=pace.done, words=escaped(words), left=left)
            bar.update(task, speed=speed_of(bar.tasks[0].speed, label))

        yield show


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def _either(value: Any, lines: Sequence[str], *, as_json: bool) -> None:
    """Print one JSON object, or lines for people."""
    emit(_json(value) if as_json else "\n".join(map(escaped, lines)))


def _json(value: Any) -> str:
    """One line of JSON in ASCII. Characters that act on a terminal are escaped, including the one that JSON leaves."""
    return json.dumps(value, sort_keys=True).replace("\x7f", "\\u007f")


def _named(name: str, generator: str | None, measure: str | None = None) -> str:
    """The name of a control or criterion, with its generator and its recogniser."""
    return f"{generator + ': ' if generator else ''}{name}{' by ' + measure if measure else ''}"


def _figure(value: float | None, limit: float) -> str:
    """A measured figure, never rounded to a limit that it does not reach."""
    from ireu_cli.report import rounded

    return "not measured" if value is None else rounded(value, 3, limit)


def _words(value: Any) -> str:
    """A list in words."""
    return (", ".join(value) or "nothing known") if isinstance(value, list) else str(value)


def _nothing(_words: str) -> None:
    """Stand in for a progress bar that is not shown."""


def _about(result: "StepResult") -> dict[str, Any]:
    manifest = result.manifest
    return {
        "state": manifest.state,
        "tap": manifest.encoder.tap,
        "metrics": manifest.metrics,
        **({"report": result.report.model_dump(mode="json")} if result.report else {}),
    }


_UNITS = {"photos": "photos", "pictures": "pictures", "MB": "MB", "weights": "tensors"}
"""The unit that is counted, by a word of the label."""


def speed_of(speed: float | None, label: str) -> str:
    """The speed, such as `3.1 photos/s`; slow work is given a minute."""
    if not speed:
        return ""
    unit = next((unit for word, unit in _UNITS.items() if word in label), "steps")
    return f"{speed:.1f} {unit}/s" if speed >= 1 else f"{60 * speed:.1f} {unit}/min"
