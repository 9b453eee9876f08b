"""The product's own readers, each from a place to what a file means there; values that can be compared."""

import contextlib
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from ireu_cli.applying.stored import open_stored
from ireu_cli.batching.requests_in import read_batch
from ireu_cli.cli.output import Terminal
from ireu_cli.config import load_config
from ireu_cli.encoders import families as encoders
from ireu_cli.encoders.clip import Encoder, load_encoder
from ireu_cli.encoders.clip import with_delta as with_weights
from ireu_cli.encoders.face_encoder import load_face_encoder, with_gates
from ireu_cli.encoders.families import card_of
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.encoders.ir_se.encoder import weights_in
from ireu_cli.errors import IreuError
from ireu_cli.faces.decode import BadPhotoError, decode, look
from ireu_cli.faces.folder import scan_people
from ireu_cli.faces.labels import read_labels
from ireu_cli.generators.generator import load_generators
from ireu_cli.inspecting.run import inspect_encoder
from ireu_cli.judges.face_check import load_face_check
from ireu_cli.judges.image_net import load_image_net
from ireu_cli.judges.onnx_recogniser import load_onnx
from ireu_cli.judges.recogniser import load_recogniser
from ireu_cli.manifest import Manifest, photos_of
from ireu_cli.origin import refuse_strange
from ireu_cli.params import ARCFACE_LANDMARKS, EncoderParams, RecogniserParams, Tap
from ireu_cli.sections import handed_on
from ireu_cli.session import Session
from ireu_cli.store.artifacts import read_delta, read_mask
from ireu_cli.store.deployments import Deployments
from ireu_cli.store.features import FeatureCache
from ireu_cli.store.manifests import manifest_path, read_manifest, write_manifest
from ireu_cli.store.rundir import RunDir
from ireu_cli.unlearning.gated.method import withdraw_cases
from ireu_cli.values import GateLedger
from ireu_cli.verifying.verdict import find_verdict, read_report

NOT_DIGESTED = {"environment", "timings", "checksum"}
"""When and where a run took place: the seal does not cover it, and nothing is decided by it."""


def sha(*parts: Any) -> str:
    """A digest of tensors, arrays and whatever prints."""
    digest = hashlib.sha256()
    for part in parts:
        plain = part.detach().cpu().float().numpy() if isinstance(part, torch.Tensor) else part
        digest.update(plain.tobytes() if hasattr(plain, "tobytes") else repr(plain).encode(errors="replace"))
    return digest.hexdigest()


def each_of(*reads: Callable[[], Any]) -> list[Any]:
    """What several readers make of one thing; refused if all refuse it."""
    found: list[Any] = []
    last: IreuError | None = None
    for read in reads:
        try:
            found.append(read())
        except IreuError as error:
            str(error)
            found.append(None)
            last = error
    if last is not None and not any(one is not None for one in found):
        raise last
    return found


def record(path: Path) -> dict[str, Any]:
    """A manifest as a step after it relies on it: whole, beside its files, and sealed with the run folder's key."""
    manifest = read_manifest(path)
    manifest.config()
    handed_on(manifest)
    photos_of(manifest.targets)
    assert manifest.is_of_several in {True, False}
    refuse_strange(RunDir(_run_folder(path)), manifest, "the artifact")
    return {key: value for key, value in manifest.model_dump(mode="json").items() if key not in NOT_DIGESTED}


def _run_folder(path: Path) -> Path:
    return next(folder / ".ireu" for folder in path.parents if (folder / ".ireu").is_dir())


def inspected(path: Path) -> Any:
    """What `ireu inspect` tells, on a terminal too."""
    told = inspect_encoder(str(path))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        Terminal(quiet=False, verbose=True).card(told, as_json=False)
    assert all(line.isprintable() for line in out.getvalue().split("\n"))
    return told


def mask(path: Path) -> str:
    found = read_mask(path)
    assert found.kept > 0
    return sha(found.mask, found.score)


def recorded(path: Path) -> Any:
    """An artifact with the record beside it."""
    return [record(manifest_path(path)), hashlib.sha256(path.read_bytes()).hexdigest()]


def delta(path: Path) -> Any:
    """A delta, laid on the encoder that it is for, and its requests withdrawn."""
    found = read_delta(path)
    ledger = found.ledger
    state = sha(*(part for name in sorted(found.tensors) for part in (name, found.tensors[name])))
    if isinstance(ledger, GateLedger) or "gates.weights" in found.tensors:
        network = load_face_encoder(path.parents[1] / "network" / "w.onnx", ARCFACE_LANDMARKS, "cpu")
        edits: list[Callable[[], Any]] = [lambda: with_gates(network, found).fingerprint]
        if ledger is not None:
            edits.append(lambda: sha(*withdraw_cases(network, ledger, ledger.cases[:1]).tensors.items()))
        return [state, each_of(*edits)]
    encoder = load_encoder(EncoderParams(source=str(path.parents[1] / "tiny")), "cpu")
    edits = [
        lambda: with_weights(encoder, found).fingerprint,
        lambda: encoder.reached_by(found),
    ]
    if ledger is not None:
        edits.append(lambda: sha(*withdraw_cases(encoder, ledger, ledger.cases[:1]).tensors.items()))
    return [state, each_of(*edits)]


def report(place: Path) -> Any:
    """A report as `export` relies on it: of the delta, and sealed unless it says that the edit failed."""
    said: list[str] = []
    run = RunDir(place / ".ireu")
    session = cast(Session, SimpleNamespace(run=run, talk=SimpleNamespace(note=said.append)))
    parent = Manifest.model_validate_json((place / "delta.safetensors.json").read_bytes())
    found = find_verdict(session, parent, place, place / "report")
    assert found is not None
    kept = read_report(place / "report" / "report.json")
    with contextlib.redirect_stderr(io.StringIO()) as err:
        Terminal(quiet=False, verbose=True).report(kept)
    assert all(line.isprintable() for line in err.getvalue().split("\n"))
    return [found.report.outcome, found.recorded(), sha(found.report.model_dump())]


def rewritten(place: Path) -> Any:
    """A report whose record was written anew by somebody without the key."""
    path = place / "report" / "manifest.json"
    whole = path.read_bytes()
    old = Manifest.model_validate_json(whole)
    try:
        write_manifest(path, old, [place / "report" / "report.json"], seal=lambda _: old.seal or "")
        return report(place)
    finally:
        path.write_bytes(whole)


def tower(place: Path) -> Any:
    """The same of an encoder without projection."""
    return encoder(place, "pooled")


def eva(place: Path) -> Any:
    """The same of EVA02-CLIP."""
    return _seen(encoders.load_encoder(EncoderParams(source=str(place)), ARCFACE_LANDMARKS, "cpu"))


def encoder(place: Path, tap: Tap = "image_embeds") -> Any:
    """An encoder: what names it, what it holds, and what it makes of a picture."""
    return _seen(load_encoder(EncoderParams(source=str(place), tap=tap), "cpu"))


def _seen(found: Any) -> Any:
    state = found.model.state_dict()
    name = (found.fingerprint, found.settings, found.architecture, found.preprocessing)
    return [name, sha(*(part for key in sorted(state) for part in (key, state[key]))), _features(found)]


def _features(found: Encoder) -> str:
    # Of another size, the encoder has another architecture.
    side = int(found.model.config.image_size)
    noise = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    values = found.encode(noise, found.whole_tap)
    # Settings that change the last bits alone, such as how attention is computed, name no other encoder.
    return sha([f"{number:.3g}" for number in values.flatten().tolist()])


def ir_se(path: Path) -> Any:
    """A network of facexlib: what names it, what it holds, and what it makes of noise."""
    found: Any = encoders.load_encoder(
        EncoderParams(source=str(path), tap="normed_embedding"), ARCFACE_LANDMARKS, "cpu"
    )
    state = weights_in(found.model.state_dict())
    noise = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    values = found.encode(noise, "normed_embedding").flatten().tolist()
    name = (found.fingerprint, found.architecture)
    held = sha(*(part for key in sorted(state) for part in (key, state[key])))
    return [name, held, sha([f"{number:.3g}" for number in values])]


def dinov2(place: Path) -> Any:
    """A folder of DINOv2: what names it, what it holds, and what it makes of a picture."""
    found: Any = encoders.load_encoder(EncoderParams(source=str(place), tap="pooled"), ARCFACE_LANDMARKS, "cpu")
    state = found.model.state_dict()
    values = found.encode(found.pixels([np.arange(7500, dtype=np.uint8).reshape(50, 50, 3)]), "pooled")
    name = (found.fingerprint, found.settings, found.architecture, found.preprocessing)
    held = sha(*(part for key in sorted(state) for part in (key, state[key])))
    return [name, held, sha([f"{number:.3g}" for number in values.flatten().tolist()])]


def embeddings(path: Path) -> Any:
    """Stored embeddings, each put back where it was."""
    found = open_stored(path, 12)
    before = bytes(found.data)
    for part in found.parts:
        part.put(torch.ones(len(part.vectors), dtype=torch.bool), part.vectors)
    return [sha(*(part.vectors for part in found.parts)), bytes(found.data) == before]


def card(place: Path) -> Any:
    return card_of(str(place))


def network(path: Path) -> Any:
    def embedder() -> Any:
        found = load_face_encoder(path, ARCFACE_LANDMARKS, "cpu")
        side = found.size
        noise = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
        return [(found.fingerprint, found.architecture, found.preprocessing), sha(found.embed(noise, "embedding"))]

    return each_of(
        embedder,
        lambda: card_of(str(path)),
        lambda: bool(load_onnx(RecogniserParams(name="x", kind="onnx", model=path))),
        lambda: bool(load_image_net(path)),
    )


def gate(path: Path) -> Any:
    """What `ireu inspect` says of a gate."""
    return inspect_encoder(str(path))


def pack(place: Path) -> Any:
    """A pack by our own reading of insightface's rules."""
    folder = place / "models" / "tiny"
    params = EncoderParams(source=str(folder), tap="normed_embedding")
    return each_of(
        lambda: encoders.load_encoder(params, ARCFACE_LANDMARKS, "cpu").fingerprint, lambda: card_of(str(folder))
    )


def opened_pack(place: Path) -> Any:
    """A pack by insightface itself."""
    from ireu_cli.faces.insight import pack_recogniser

    found = pack_recogniser(place, "tiny")
    return [found.file.name, found.size, found.preprocessing]


def drawn(place: Path) -> Any:
    return bool(load_generators(str(place), ["image_embeds"], "cpu"))


def bundle(place: Path) -> Any:
    found = find_bundle(str(place))
    return None if found is None else found.model_dump(mode="json")


def recogniser(place: Path) -> Any:
    return bool(load_recogniser(place / "recogniser"))


def face_check(place: Path) -> Any:
    return bool(load_face_check(place / "face_check"))


def photo(path: Path) -> Any:
    data = path.read_bytes()
    with contextlib.suppress(BadPhotoError):
        look(io.BytesIO(data), 64)
    found = decode(data, 64)
    assert found.ndim == 3
    assert found.shape[2] == 3
    return sha(found)


def settings(path: Path) -> Any:
    return _told(load_config(path, {}, {}, cwd=path.parent))


def variables(path: Path) -> Any:
    """Variables of a process, which hold no null character and are bytes."""
    plain = json.loads(path.read_bytes())
    pairs = plain.items() if isinstance(plain, dict) else []
    found = {_of_system(name): _of_system(value) for name, value in pairs}
    return _told(load_config(None, found, {}, cwd=path.parent / "people"))


def _of_system(text: Any) -> str:
    return str(text).encode(errors="replace").replace(b"\0", b"").decode(errors="surrogateescape")


def _told(resolved: Any) -> Any:
    with contextlib.redirect_stderr(io.StringIO()) as err:
        Terminal(quiet=False, verbose=True).sources(resolved)
    assert all(line.isprintable() for line in err.getvalue().split("\n"))
    return resolved.config.model_dump(mode="json")


def labels(path: Path) -> Any:
    people = scan_people(path.parent / "people", "--retain", "everybody")
    found = read_labels(path).of(people)
    assert all(text.isprintable() for each in found.values.values() for text in each.values())
    assert all(text.isprintable() for text in found.values)
    return [found.values, found.notes]


def batch(path: Path) -> Any:
    found = read_batch(path).requests
    assert all(one.case.isprintable() for one in found)
    assert all(one.photos is None or one.photos.resolve().is_relative_to(path.parent.resolve()) for one in found)
    return [(one.case, one.action, str(one.photos), dict(one.record)) for one in found]


def deployments(path: Path) -> Any:
    found = Deployments(path.parents[1], "0" * 16).read()
    return [one.model_dump() for one in found]


def locations(path: Path) -> Any:
    return RunDir(path.parents[1]).recall(path.stem)


def cached(path: Path) -> Any:
    """Cached features: what is damaged counts as not there."""
    cache = FeatureCache(path.parent)
    keys = ["a" * 64, "b" * 64]
    return None if cache.missing(keys) else sha(cache.get(keys))
