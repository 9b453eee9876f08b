"""Exports as the signing tool of the OpenSSF takes them: signed, verified, and found out when something changes."""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import signing, verifying


@pytest.fixture
def signed(job: Path, tmp_path: Path) -> Path:
    """An export with a signature made with a key of its own."""
    folder = tmp_path / "encoder"
    shutil.copytree(job / "encoder-unlearned", folder)
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key").write_bytes(private)
    (tmp_path / "key.pub").write_bytes(public)
    signer = signing.Config().use_elliptic_key_signer(private_key=tmp_path / "key")  # type: ignore[no-untyped-call]
    signer.sign(folder, tmp_path / "model.sig")
    return folder


def verify(folder: Path) -> None:
    verifier = verifying.Config()  # type: ignore[no-untyped-call]
    verifier.use_elliptic_key_verifier(public_key=folder.parent / "key.pub")
    verifier.verify(folder, folder.parent / "model.sig")


def test_an_export_is_signed_and_verified(signed: Path) -> None:
    verify(signed)


def test_a_changed_file_breaks_the_signature(signed: Path) -> None:
    (signed / "ireu.json").write_text("{}")
    with pytest.raises(ValueError, match="mismatch"):
        verify(signed)


def test_an_added_file_breaks_the_signature(signed: Path) -> None:
    (signed / "extra.txt").write_text("x")
    with pytest.raises(ValueError, match="mismatch"):
        verify(signed)


def test_the_commands_of_the_docs_sign_and_find_out(job: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "artifacts.md").read_text()
    (block,) = [part for part in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if "model_signing" in part]
    install, keys, sign, check = block.strip().splitlines()
    assert re.fullmatch(r"pip install model-signing==[0-9.]+", install)
    shutil.copytree(job / "encoder-unlearned", tmp_path / "encoder-unlearned")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run = partial(
        subprocess.run, shell=True, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    for line in (keys, sign, check):
        done = run(line)
        assert done.returncode == 0, done.stderr
    (tmp_path / "encoder-unlearned" / "README.md").write_text("another card")
    assert run(check).returncode != 0
