"""All requests of a folder through the four steps: one case after another, and what cannot be done stops no other.

The deltas lie in a chain, `deltas/0001.safetensors` and so on, each made onto the one before it. So a batch that was
stopped goes on where it was, and a batch of the next night adds to that of this one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ireu_cli.batching.requests_in import WITHDRAW, Request
from ireu_cli.config import Resolved
from ireu_cli.errors import IreuError, UserError
from ireu_cli.exporting.run import run_export
from ireu_cli.locating.run import run_locate
from ireu_cli.manifest import Manifest
from ireu_cli.opening import StepResult
from ireu_cli.session import Talk
from ireu_cli.store.files import disk_errors
from ireu_cli.store.locks import held
from ireu_cli.store.manifests import manifest_path, read_manifest
from ireu_cli.unlearning.change_requests import run_withdraw
from ireu_cli.unlearning.run import run_unlearn
from ireu_cli.values import Json
from ireu_cli.verifying.run import run_verify

Resolve = Callable[[Mapping[str, Any]], Resolved]
"""Makes the configuration of a step from the settings that are its own."""
DONE, ALREADY, FAILED = "done", "already done", "failed"


@dataclass(frozen=True)
class Plan:
    """A batch: its requests, where its results go, and what they are added to."""

    requests: Sequence[Request]
    place: Path
    onto: Path | None = None
    mask: Path | None = None
    strict: bool = False
    allow_failed: bool = False


@dataclass
class Batch:
    """What became of it: of each case in words, the delta, how it was verified, and the export."""

    cases: dict[str, dict[str, Json]] = field(default_factory=dict)
    delta: Path | None = None
    outcome: str | None = None
    export: Path | None = None
    why: str | None = None

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
        chain = _Chain(plan.place / "deltas", plan.onto)
        for number, request in enumerate(plan.requests, 1):
            talk.note(f"case {number} of {len(plan.requests)}: {request.case}")
            batch.cases[request.case] = _done(plan, request, chain, resolve, talk)
        batch.delta = chain.last
        if chain.last is not None:
            _finish(plan, batch, chain, chain.last, resolve, talk)
    return batch


class _Chain:
    """The deltas of a place in their order; a new one is made onto the last one."""

    def __init__(self, folder: Path, onto: Path | None) -> None:
        self._folder = folder
        done = sorted(path for path in folder.glob("[0-9]*.safetensors") if manifest_path(path).is_file())
        self.last = done[-1] if done else onto
        self._manifest = None if self.last is None else read_manifest(manifest_path(self.last))

    @property
    def next(self) -> Path:
        """Where the next one goes."""
        made = self.last is not None and self.last.parent == self._folder
        number = int(self.last.stem) + 1 if made and self.last is not None else 1
        return self._folder / f"{number:04d}.safetensors"

    @property
    def cases(self) -> frozenset[str]:
        """The cases that the last one removes."""
        return frozenset() if self._manifest is None else frozenset(self._manifest.metrics.get("requests", ()))

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of the last one."""
        return self._manifest

    def add(self, made: StepResult) -> None:
        """The delta that was just made is the last one."""
        self.last, self._manifest = made.artifact, made.manifest


def _done(plan: Plan, request: Request, chain: _Chain, resolve: Resolve, talk: Talk) -> dict[str, Json]:
    """Do what one case asks for, and say how it went."""
    if (request.case in chain.cases) is not (request.action == WITHDRAW):
        return {"state": ALREADY, "action": request.action}
    try:
        chain.add(_changed(plan, request, chain, resolve, talk))
    except UserError as error:
        talk.note(f"case {request.case} failed: {error}")
        return {"state": FAILED, "action": request.action, "why": str(error)}
    return {"state": DONE, "action": request.action}


def _changed(plan: Plan, request: Request, chain: _Chain, resolve: Resolve, talk: Talk) -> StepResult:
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


def _finish(plan: Plan, batch: Batch, chain: _Chain, last: Path, resolve: Resolve, talk: Talk) -> None:
    """Verify the last delta on the people whose photos are at hand, and export it if that went well."""
    try:
        report = _verified(plan, chain, last, resolve, talk)
        if report is None:
            batch.why = "nobody whose photos are at hand is removed, so nothing can be verified"
        else:
            batch.outcome = report.report.outcome if report.report else None
        if batch.outcome == "pass" or plan.allow_failed:
            out = plan.place / "encoder-unlearned"
            batch.export = run_export(
                resolve({}), talk, last, out, force=_is_stale(out / "ireu.json", chain),
                report=None if report is None else plan.place / "report", allow_failed=plan.allow_failed,
            ).artifact  # fmt: skip
    except IreuError as error:
        batch.why = str(error)


def _verified(plan: Plan, chain: _Chain, last: Path, resolve: Resolve, talk: Talk) -> StepResult | None:
    folder = _people(plan, chain)
    if folder is None:
        return None
    out = plan.place / "report"
    return run_verify(
        resolve({"data.targets": folder}), talk, last, out,
        force=_is_stale(out / "manifest.json", chain), strict=plan.strict,
    )  # fmt: skip


def _people(plan: Plan, chain: _Chain) -> Path | None:
    """A folder of links to the photos of everybody who is removed and at hand; None if that is nobody."""
    folder = plan.place / "people"
    with disk_errors(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        for link in folder.iterdir():
            if link.is_symlink():
                link.unlink()
        wanted = [one for one in plan.requests if one.case in chain.cases and one.photos and one.photos.is_dir()]
        for number, request in enumerate(wanted, 1):
            (folder / f"{number:05d}").symlink_to(Path(request.photos or "").absolute(), target_is_directory=True)
    return folder if wanted else None


def _is_stale(record: Path, chain: _Chain) -> bool:
    """Whether an output is there that was made of an earlier delta."""
    if not record.is_file() or chain.manifest is None:
        return False
    return read_manifest(record).parent != chain.manifest.digest
