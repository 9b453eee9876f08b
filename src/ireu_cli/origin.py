"""The origin of an artifact: whether you can rely on its record of the photos that were used."""

from ireu_cli.config import Resolved
from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import Manifest, Step
from ireu_cli.store.rundir import RunDir


def check_key(step: Step, resolved: Resolved, run: RunDir, manifest: Manifest) -> None:
    """Refuse a parent of another run folder: only that folder's key tells which photos were used.

    The check is skipped for an export of named weights, which does not need to know.

    Raises:
        ArtifactError: the parent has to be of this run folder and is not.
    """
    alone = (
        step == "export" and resolved.sources["encoder.source"] != "default" and resolved.config.data.targets is None
    )
    if not alone:
        refuse_strange(run, manifest, f"the output of {manifest.step}")


def refuse_strange(run: RunDir, manifest: Manifest, what: str) -> None:
    """Refuse an artifact whose record of the photos that were used may be false.

    With another key, no photo counts as used. In a record that somebody else sealed, only the photos that they name
    count. The photos that made the edit would then pass as photos that it never saw.

    Raises:
        ArtifactError: it has no key or another key, or its manifest is not sealed with this run folder's key.
    """
    if manifest.key != run.key_name:
        raise ArtifactError(
            f"The run folder {run.path} is not the one that {manifest.step} ran with, "
            "so it cannot tell which photos were used",
            f"Run from the folder where {manifest.step} ran, or name its run folder with --run-dir",
        )
    if not run.vouches(manifest):
        raise ArtifactError(
            f"The manifest of {what} is not sealed with the key of the run folder {run.path}, although it names that "
            "key: somebody changed it, or wrote it elsewhere",
            f"Restore it from a copy, or run `ireu {manifest.step}` again",
        )
