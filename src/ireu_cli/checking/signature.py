"""Verify a signature that the OpenSSF's `model_signing` made over an artifact's folder or file."""

from pathlib import Path

from ireu_cli.errors import ArtifactError, UserError
from ireu_cli.support.bounded import printable


def is_signed(path: Path, signature: Path, public_key: Path) -> tuple[bool, str]:
    """Whether a key signed what lies at the path, and the result in words.

    Raises:
        UserError: `model_signing` is not installed.
        ArtifactError: signature or key are not there.
    """
    for file, what in ((signature, "signature"), (public_key, "public key")):
        if not file.is_file():
            raise ArtifactError(f"The {what} {file} does not exist", f"Name the file with the {what}")
    try:
        from model_signing import verifying
    except ImportError:
        raise UserError("model_signing is not installed", "Run `pip install model-signing==1.1.1`") from None
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)  # type: ignore[no-untyped-call]
        verifier.verify(path, signature)
    except Exception as error:  # noqa: BLE001 - it raises errors of several libraries for damaged files
        return False, f"NOT VALID by {public_key.name}: {printable(str(error), 200) or type(error).__name__}"
    return True, f"valid, by {public_key.name}"
