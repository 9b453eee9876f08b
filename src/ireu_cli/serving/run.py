"""`ireu deploy`: put an export into a service, see that it is loaded, and put back what was there before."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from ireu_cli.cases.known import SERVED, TAKEN_BACK
from ireu_cli.checking.known_exports import Export
from ireu_cli.checking.run import Checked, Verdict
from ireu_cli.errors import ArtifactError, ServiceError, UserError
from ireu_cli.manifest import digest_of
from ireu_cli.serving.exported import Exported, open_exported
from ireu_cli.serving.stack import Back, Holding, Seen, Stack, look
from ireu_cli.store.deployments import Deployments, Served
from ireu_cli.store.register import FIRST, Event
from ireu_cli.values import Json

Add = Callable[[Event], object]
"""What adds an event to a register."""


def check_service(stack: Stack, places: Sequence[Path], add: Add | None = None) -> Checked:
    """Say whether a service holds an export.

    Args:
        stack: the place in the service.
        places: at least one export that it may hold; it should hold the first one.
        add: adds the result to a register, if there is one.

    Raises:
        ArtifactError: one is no export, or is not as recorded.
        ServiceError: the service does not say what it holds.
    """
    exports = [open_exported(place) for place in places]
    seen = look(stack, exports)
    verdict: Verdict = "as recorded" if seen.export is exports[0] else "not as recorded"
    if add is not None:
        add(_event(exports[0].record, "check", verdict, stack))
    return Checked(verdict, {"verdict": verdict} | _told(stack, seen))


def deploy(place: Path, stack: Stack, kept: Deployments, add: Add, before: str | None = None) -> dict[str, Json]:
    """Put an export into a service; what is there stays until the export was seen to be loaded.

    A second run finds it there and changes nothing.

    Args:
        place: the export.
        stack: the place in the service.
        kept: what was there earlier.
        add: adds the event to a register.
        before: where the service finds what it held before the first deployment.

    Raises:
        ArtifactError: it is no export, or is not as recorded.
        ServiceError: the service did not load it.
    """
    export = open_exported(place)
    # First, because a record that cannot be noted must not be served.
    event, path = _event(export.record, "deployment", f"{SERVED} {stack.kind}", stack), stack.path_of(export)
    with kept.alone():
        held = stack.holding()
        known = _with(stack, kept.read(), held, before)
        is_there = held is not None and held.note is None and stack.held_as(export, held) is not None
        if held is not None and is_there:
            back = Back(held, path)
        else:
            # A killed run must not forget what it replaced.
            kept.write(known)
            back = _put(stack, export, known, held)
        now = _served(export.record, back)
        kept.write(_on(known, now))
        if not is_there or known[-1].artifact != now.artifact:
            add(event)
    seen = Seen(back.holding, export, stack.held_as(export, back.holding) or "")
    return {"deployed": not is_there} | _told(stack, seen)


def roll_back(stack: Stack, kept: Deployments, add: Add, before: str | None = None) -> dict[str, Json]:
    """Put back what a service held before the last deployment.

    Args:
        stack: the place in the service.
        kept: what was there earlier.
        add: adds the events to a register.
        before: where the service finds what it held earlier, if nobody noted it.

    Raises:
        UserError: nothing was deployed from this run folder, or all of it was taken back.
        ServiceError: the service did not load it.
    """
    with kept.alone():
        known, held = kept.read(), stack.holding()
        # After a deployment that was interrupted or failed, the last one noted is what was there before.
        last = known[-1] if known and held is not None and held.digest == known[-1].digest else None
        left = known if last is None else known[:-1]
        if not left:
            raise UserError(
                f"This run folder does not know what {stack.place} held before",
                "Deploy the export that it should hold",
            )
        earlier = left[-1]
        back = stack.put_back(Back(Holding(earlier.digest, earlier.version), before or earlier.path))
        kept.write((*left[:-1], earlier.model_copy(update={"version": back.holding.version, "path": back.path})))
        if last is not None:
            add(_event_of(last, f"{TAKEN_BACK} {stack.kind}", stack))
        if earlier.artifact is not None:
            add(_event_of(earlier, f"{SERVED} {stack.kind}", stack))
    return {
        "rolled_back": True,
        "service": stack.kind,
        "place": stack.place,
        "version": back.holding.version,
        "cases": list(earlier.cases),
        "holds": "an earlier export" if earlier.artifact else "what it held before the first deployment",
    }


def _put(stack: Stack, export: Exported, known: tuple[Served, ...], held: Holding | None) -> Back:
    """Load an export; where the service ends with something else than before, put back what was there."""
    try:
        return stack.put(export)
    except ServiceError as error:
        now = stack.holding()
        if now is not None and now.note is None and stack.held_as(export, now) is not None:
            # Only the answer was lost.
            return Back(now, stack.path_of(export))
        if held is None or not known or known[-1].digest != held.digest or now is None or now.digest == held.digest:
            raise
        back = Back(held, known[-1].path)
        if not stack.can_return(back):
            raise
        stack.put_back(back)
        raise ServiceError(f"{error.fact}. What it held before was put back", error.remedy) from None


def _with(stack: Stack, known: tuple[Served, ...], held: Holding | None, before: str | None) -> tuple[Served, ...]:
    """The list with what is there now as the last one, also where somebody else put it there.

    What nobody can put back is noted only if there is nothing else.
    """
    if held is None:
        return known
    if known and known[-1].digest == held.digest:
        last = known[-1]
        return (*known[:-1], last.model_copy(update={"version": held.version, "path": before or last.path}))
    if known and not stack.can_return(Back(held, before)):
        return known
    return (*known, Served(digest=held.digest, version=held.version, path=before))


def _on(known: tuple[Served, ...], now: Served) -> tuple[Served, ...]:
    """The list with what is there now at its end, once."""
    return (*known[:-1], now) if known and known[-1].digest == now.digest else (*known, now)


def _served(record: Export, back: Back) -> Served:
    manifest = record.manifest
    return Served(
        digest=back.holding.digest,
        version=back.holding.version,
        path=back.path,
        artifact=manifest.digest,
        encoder=record.original,
        edited=record.edited,
        cases=record.cases or (),
    )


def _told(stack: Stack, seen: Seen) -> dict[str, Json]:
    export = seen.export
    return {
        "service": stack.kind,
        "place": stack.place,
        "holds": seen.words if export is None else f"{export.record.name}, {seen.words}: {export.record.honours}",
        "cases": [] if export is None else list(export.record.cases or ()),
        "warnings": [] if seen.holding is None or seen.holding.note is None else [seen.holding.note],
        "digest": None if seen.holding is None else seen.holding.digest,
        "version": None if seen.holding is None else seen.holding.version,
    }


def _event(record: Export, what: Literal["check", "deployment"], outcome: str, stack: Stack) -> Event:
    """The event that a register is told.

    Raises:
        ArtifactError: the export's record holds something that no register does.
    """
    manifest = record.manifest
    try:
        return Event(
            what=what,
            cases=record.cases or (),
            artifact=manifest.digest,
            parent=manifest.parent,
            encoder=record.original,
            edited=record.edited,
            outcome=outcome,
            place=name_of(stack),
        )
    except ValidationError:
        raise ArtifactError(f"The record of {record.name} names no good cases or encoders", "Export again") from None


def _event_of(one: Served, outcome: str, stack: Stack) -> Event:
    return Event(
        what="deployment",
        cases=one.cases,
        artifact=one.artifact or FIRST,
        encoder=one.encoder,
        edited=one.edited,
        outcome=outcome,
        place=name_of(stack),
    )


def name_of(stack: Stack) -> str:
    """A digest (16 hex) that tells places apart; a register says nothing of hosts and paths."""
    return digest_of([stack.kind, stack.key])[:16]
