"""Opening a session: what the user leaves out comes from the step before; and what a step leaves behind."""

from dataclasses import dataclass
from pathlib import Path

from ireu_cli.config import Resolved, inherit, without
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import Manifest, Step
from ireu_cli.origin import check_key
from ireu_cli.params import ARCFACE_LANDMARKS, Config
from ireu_cli.report import Report
from ireu_cli.sections import handed_on
from ireu_cli.session import Session, Talk
from ireu_cli.sharding.choose import executor_for
from ireu_cli.store import outputs
from ireu_cli.store.files import portable_name
from ireu_cli.store.manifests import manifest_path, read_manifest
from ireu_cli.store.rundir import RunDir
from ireu_cli.support.runtime import settle


@dataclass(frozen=True)
class StepResult:
    """The result of a step: the artifact, its manifest, whether it existed already, and the report if there is one."""

    artifact: Path
    manifest: Manifest
    reused: bool
    report: Report | None = None


def open_session(
    step: Step, resolved: Resolved, talk: Talk, *, force: bool, parent: Path | None = None, out: Path | None = None
) -> Session:
    """Open a session; settings that you leave out come from the parent's manifest and from the run folder.

    Args:
        step: which step runs.
        resolved: flags, environment and file.
        talk: prints messages and progress.
        force: overwrite an existing output.
        parent: the input artifact (mask or delta), with its manifest beside it.
        out: the output of the step; if it cannot be written, it is refused now, before the work.

    Raises:
        ArtifactError: the parent, its manifest, the run folder or the output path cannot be used.
    """
    if out is not None:
        outputs.refuse_place(outputs.record_of(step, out), out)
    run = RunDir(resolved.config.run.run_dir, talk.note)
    manifest = None
    if parent is not None:
        if not parent.is_file():
            raise ArtifactError(f"{parent} does not exist", "Name the file that the earlier step wrote")
        manifest = read_manifest(manifest_path(parent))
        if portable_name(parent.name) not in {record.name for record in manifest.outputs}:
            raise ArtifactError(
                f"The manifest beside {parent} describes another file", "Move the file back beside its own manifest"
            )
        check_key(step, resolved, run, manifest)
        resolved = inherit(resolved, handed_on(manifest))
        known = run.recall(manifest.digest)
        resolved = inherit(resolved, {key: place for key, place in known.items() if _still_there(key, place)})
        if manifest.is_of_several and resolved.sources["data.targets"] != "flag":
            resolved = without(resolved, "data", "targets")
    settle(resolved.config.run.device)
    session = Session(step, _with_landmarks(resolved.config), run, talk, force, manifest, sources=resolved.sources)
    if step != "export":
        # What an export encodes, it encodes with the files that it has just written.
        session.executor = executor_for(session.config.run, run.shards(session.work_name(out)), talk.note)
    return session


def check_parent(session: Session, step: Step) -> Manifest:
    """Return the parent, which must be of the given step.

    Raises:
        ArtifactError: it is of another step.
    """
    parent = session.parent
    if parent is None or parent.step != step:
        found = "nothing" if parent is None else f"the result of {parent.step}"
        raise ArtifactError(
            f"The input has to be the result of {step}, and it is {found}", f"Name the output of `ireu {step}`"
        )
    return parent


def _with_landmarks(config: Config) -> Config:
    """Settle the positions of the faces, so that the record names the landmarks that were used."""
    if config.data.landmarks is not None:
        return config
    bundle = find_bundle(config.encoder.source)
    landmarks = ARCFACE_LANDMARKS if bundle is None else bundle.landmarks
    return config.model_copy(update={"data": config.data.model_copy(update={"landmarks": landmarks})})


def _still_there(key: str, place: str) -> bool:
    """Whether the source still exists. A hub id always does; if a path has moved, environment or file may name it."""
    return Path(place).exists() or (key == "encoder.source" and not Path(place).is_absolute())
