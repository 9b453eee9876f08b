"""Where an artifact comes from: whether its record of the photos that were used can be relied on."""

from ireu_cli.config import Resolved
from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import Manifest, Step
from ireu_cli.store.rundir import RunDir


def check_key(step: Step, resolved: Resolved, run: RunDir, manifest: Manifest) -> None:
    """Without the key nobody can tell which photos an earlier step used; an export of named weights can do without.

    Raises:
        ArtifactError: the parent is not of this run folder, and has to be.
    """
    alone = (
        step == "export" and resolved.sources["encoder.source"] != "default" and resolved.config.data.targets is None
    )
    if not alone:
        refuse_strange(run, manifest, f"what {manifest.step} wrote")


def refuse_strange(run: RunDir, manifest: Manifest, what: str) -> None:
    """Refuse an artifact whose record of the photos that were used need not be true.

    With another key, no photo counts as used, and with a record that somebody else sealed only those that they name:
    what the edit was made from would pass for photos that it never saw.

    Raises:
        ArtifactError: it has no key or another one, or its manifest is not sealed with this run folder's key.
    """
    if manifest.key != run.key_name:
        raise ArtifactError(
            f"The run folder {run.path} is not the one that {manifest.step} ran with, "
            "so it cannot tell which photos were used",
            f"Run from the folder where {manifest.step} ran, or name its run folder with --run-dir",
        )
    if not run.vouches(manifest):
        raise ArtifactError(
            f"The manifest of {what} is not sealed with the key of the run folder {run.path}, though it names that "
            "key: somebody changed it, or wrote it elsewhere",
            f"Restore it from a copy, or run `ireu {manifest.step}` again",
        )
