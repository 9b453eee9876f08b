"""All requests of a folder through the four steps: one case after another, and what cannot be done stops no other.

The deltas lie in a chain, `deltas/0001.safetensors` and so on, each made onto the one before it. So a batch that was
stopped goes on where it was, and a batch of the next night adds to that of this one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ireu_cli.batching.chain import Chain, Resolve, note_last, withdrawn_cases
from ireu_cli.batching.people import link_people
from ireu_cli.batching.plan import Plan
from ireu_cli.batching.requests_in import WITHDRAW, Request
from ireu_cli.config import Resolved
from ireu_cli.errors import ArtifactError, IreuError, UserError
from ireu_cli.exporting.run import run_export
from ireu_cli.locating.run import run_locate
from ireu_cli.opening import StepResult
from ireu_cli.session import Talk
from ireu_cli.store.files import disk_errors
from ireu_cli.store.locks import held
from ireu_cli.store.manifests import EXPORT_MANIFEST_NAME, REPORT_MANIFEST_NAME, manifest_path
from ireu_cli.support.bounded import printable
from ireu_cli.unlearning.change_requests import run_withdraw
from ireu_cli.unlearning.run import run_unlearn
from ireu_cli.values import Json
from ireu_cli.verifying.run import run_verify

DONE, ALREADY, FAILED = "done", "already done", "failed"


@dataclass
class Batch:
    """What became of it: of each case in words, the delta, how it was verified, and the export.

    `people` are the cases in the order of the report's people. `is_settled` says that nothing is left to do.
    """

    cases: dict[str, dict[str, Json]] = field(default_factory=dict)
    delta: Path | None = None
    outcome: str | None = None
    export: Path | None = None
    why: str | None = None
    people: list[str] = field(default_factory=list)
    is_settled: bool = False

    @property
    def failed(self) -> int:
        """How many cases failed."""
        return sum(one["state"] == FAILED for one in self.cases.values())

    def told(self) -> dict[str, Json]:
        """As plain values."""
        paths = {"delta": self.delta, "export": self.export}
        return {
            "cases": self.cases,
            "failed": self.failed,
            "verification": self.outcome,
            "why": self.why,
            "people": self.people,
            **{name: None if path is None else str(path) for name, path in paths.items()},
        }


def run_batch(plan: Plan, resolve: Resolve, talk: Talk) -> Batch:
    """Add or withdraw every request, then verify and export the result once.

    Args:
        plan: the batch.
        resolve: makes the configuration of a step.
        talk: prints messages and progress.

    Raises:
        IreuError: another batch is at work there, or the configuration cannot be used.
        KeyboardInterrupt: stopped; the same command goes on.
    """
    with disk_errors(plan.place):
        (plan.place / "deltas").mkdir(parents=True, exist_ok=True)
    batch = Batch()
    with held(plan.place / ".lock", plan.place, talk.note):
        _refuse_lost_table(plan)
        chain = Chain(plan.place / "deltas", plan.onto)
        if plan.onto is not None and chain.last != plan.onto:
            talk.note(f"{plan.onto} is left alone: there are deltas in {plan.place / 'deltas'} already")
        note_last(plan, chain, resolve)
        withdrawn = withdrawn_cases(resolve)
        for number, request in enumerate(plan.requests, 1):
            talk.note(f"case {number} of {len(plan.requests)}: {request.case}")
            batch.cases[request.case] = _done(plan, request, chain, withdrawn, resolve, talk)
        batch.delta = chain.last
        if chain.last is None:
            batch.is_settled = not batch.cases
        else:
            _finish(plan, batch, chain, chain.last, resolve, talk)
    return batch


def _refuse_lost_table(plan: Plan) -> None:
    """Refuse folders in place of a table that was there before: it may have withdrawn some of them.

    Raises:
        UserError: the table is gone.
    """
    mark = plan.place / ".table"
    if plan.in_table:
        with disk_errors(mark):
            mark.touch()
    elif mark.exists():
        raise UserError(
            "The table of the batches before is gone, and without it cases that it withdrew would be removed again",
            f"Put the table back, or delete {mark} if the folders alone are to count",
        )


def _done(
    plan: Plan, request: Request, chain: Chain, withdrawn: frozenset[str], resolve: Resolve, talk: Talk
) -> dict[str, Json]:
    """Do what one case asks for, and say how it went."""
    told: dict[str, Json] = {"state": ALREADY, "action": request.action}
    if request.why is not None:
        return told | {"state": FAILED, "why": request.why}
    if request.action == WITHDRAW and request.case not in chain.cases:
        if request.case in withdrawn:
            return told
        return told | {"state": FAILED, "why": "There is no such case. Correct its name, or take the line out."}
    if request.action != WITHDRAW and request.case in chain.cases:
        return told
    try:
        chain.add(_changed(plan, request, chain, resolve, talk))
    except Exception as error:  # noqa: BLE001 - whatever one case does, the others have their turn
        chain.refresh()
        if (request.case in chain.cases) is (request.action != WITHDRAW):
            return told | {"state": DONE, "why": f"It was written, and then: {_words(error)}"}
        talk.note(f"case {request.case} failed: {_words(error)}")
        return told | {"state": FAILED, "why": _words(error)}
    return told | {"state": DONE}


def _words(error: Exception) -> str:
    """An error as a sentence without a path."""
    if isinstance(error, IreuError):
        return str(error)
    if isinstance(error, OSError):
        return f"A file or folder cannot be used ({error.strerror or type(error).__name__})."
    return f"{type(error).__name__}: {printable(error, 300)}. This may be a bug of ireu; `ireu unlearn` shows more."


def _changed(plan: Plan, request: Request, chain: Chain, resolve: Resolve, talk: Talk) -> StepResult:
    if request.action == WITHDRAW and chain.last is not None:
        return run_withdraw(resolve({}), talk, chain.last, [request.case], chain.next, force=False)
    record = {f"record.{name}": value for name, value in request.record.items()}
    own = {"data.targets": request.photos, "unlearn.method": "gated", "record.case_id": request.case} | record
    mask = plan.mask or _mask(plan, request, resolve, talk)
    return run_unlearn(resolve(own), talk, mask, chain.next, force=False, onto=chain.last)


def _mask(plan: Plan, request: Request, resolve: Resolve, talk: Talk) -> Path:
    """The mask of the place; the first case that can be read makes it."""
    mask = plan.place / "mask.pt"
    if not manifest_path(mask).is_file():
        run_locate(resolve({"data.targets": request.photos}), talk, mask, force=False)
    return mask


def _finish(plan: Plan, batch: Batch, chain: Chain, last: Path, resolve: Resolve, talk: Talk) -> None:
    """Verify the last delta on the people whose photos are at hand, and export it if that went well."""
    out = plan.place / "encoder-unlearned"
    try:
        folder, batch.people = link_people(plan, chain)
        targets: dict[str, Path] = {} if folder is None else {"data.targets": folder}
        verified = None if folder is None else _verified(plan, last, resolve(targets), talk)
        if verified is None or verified.report is None:
            batch.why = "nobody whose photos are at hand is removed, so nothing can be verified"
            if chain.is_of(out / EXPORT_MANIFEST_NAME):
                batch.export, batch.is_settled = out, True
        else:
            batch.outcome = verified.report.outcome
            batch.why = None if batch.outcome == "pass" else verified.report.summary
        if batch.outcome == "pass" or plan.allow_failed:
            report = None if verified is None else plan.place / "report"
            batch.export = _afresh(
                out / EXPORT_MANIFEST_NAME,
                lambda force: run_export(
                    resolve(targets), talk, last, out, force=force, report=report, allow_failed=plan.allow_failed
                ),
            ).artifact
    except Exception as error:  # noqa: BLE001 - what became of the cases has to be told
        batch.why, batch.is_settled = _words(error), False
        talk.note(_words(error))


def _verified(plan: Plan, last: Path, resolved: Resolved, talk: Talk) -> StepResult:
    out = plan.place / "report"
    return _afresh(
        out / REPORT_MANIFEST_NAME,
        lambda force: run_verify(resolved, talk, last, out, force=force, strict=plan.strict),
    )


def _afresh(record: Path, step: Callable[[bool], StepResult]) -> StepResult:
    """Take a result that is there, or make it anew in place of one that was made of something else."""
    if not record.is_file():
        return step(False)
    try:
        return step(False)
    except ArtifactError:
        # Somebody else's file is refused all the same.
        return step(True)
