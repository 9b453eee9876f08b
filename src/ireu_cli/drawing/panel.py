"""The panel that judges a verification: a face check and several recognisers, looking at photos and pictures alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ireu_cli.drawing.embedded_judge import Judge, find_landmarks
from ireu_cli.encoders.face_encoder import network_fingerprint
from ireu_cli.encoders.files.face_pack import networks_in
from ireu_cli.encoders.files.fingerprint import fingerprint_of
from ireu_cli.encoders.files.networks import external_files
from ireu_cli.encoders.files.onnx_session import stays_on_cpu
from ireu_cli.encoders.files.portrait import Bundle
from ireu_cli.encoders.kinds import lies_in_checkpoint
from ireu_cli.errors import ConfigError
from ireu_cli.faces.align import Points, crop_face
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.faces.insight import pack_recogniser
from ireu_cli.judges.face_check import FaceCheck
from ireu_cli.judges.judging import JudgingNet, from_embedded
from ireu_cli.judges.onnx_recogniser import from_insight, load_onnx
from ireu_cli.manifest import Manifest, digest_of
from ireu_cli.params import RecogniserParams
from ireu_cli.session import Session
from ireu_cli.store.features import FeatureCache
from ireu_cli.values import RgbImage

_SIGHT_VERSION = 3
"""Raise it when the same picture gives another sight, so that kept rows are not mixed."""
_BATCH = 32


@dataclass(frozen=True)
class Sight:
    """What was seen in one picture: landmarks float64 (5, 2) in pixels, and each recogniser's unit vector (d,).

    Without a face, the landmarks are None and the vectors are NaN.
    """

    landmarks: Points | None
    vectors: tuple[Tensor, ...]


@dataclass(frozen=True)
class Panel:
    """The judges, and what they saw before, kept in the run folder: landmarks first, then a cache a recogniser."""

    check: FaceCheck
    recognisers: tuple[JudgingNet, ...]
    fingerprint: str
    caches: tuple[FeatureCache, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What the report calls the recognisers."""
        return tuple(net.name for net in self.recognisers)

    def look(
        self, items: Sequence[tuple[str, Callable[[], RgbImage]]], progress: Callable[[int], None]
    ) -> dict[str, Sight]:
        """Look at pictures, each given by a key that names its content and a way to load it.

        Returns:
            Sights by key; a photo that cannot be read is missing.
        """
        loads = dict(items)
        unknown = {key for cache in self.caches for key in cache.missing(list(loads))}
        missing = [key for key in loads if key in unknown]
        progress(len(loads) - len(missing))
        for start in range(0, len(missing), _BATCH):
            piece = missing[start : start + _BATCH]
            rows = {key: row for key in piece if (row := self._rows(loads[key])) is not None}
            for column, cache in enumerate(self.caches):
                if absent := cache.missing(list(rows)):
                    cache.put(absent, torch.stack([rows[key][column] for key in absent]))
            progress(len(piece))
        known = [key for key in loads if all(key in cache for cache in self.caches)]
        columns = [cache.get(known) for cache in self.caches] if known else []
        return {key: _sight([column[n] for column in columns]) for n, key in enumerate(known)}

    def vectors_at(self, image: RgbImage, points: Points) -> tuple[Tensor, ...]:
        """Each recogniser's unit vector (d,) of a face whose landmarks are known; NaN where they span nothing."""
        found = []
        for net in self.recognisers:
            try:
                crop, _ = crop_face(image, points, net.size, net.margin)
                found.append(net.embed([crop])[0])
            except BadPhotoError:
                found.append(torch.full((net.width,), torch.nan))
        return tuple(found)

    def _rows(self, load: Callable[[], RgbImage]) -> list[Tensor] | None:
        """Landmarks (10), then each recogniser's vector (d,); all NaN without a face; None for an unreadable photo."""
        try:
            # A copy: what Pillow gives cannot be written to, which torch warns of.
            image = np.array(load())
        except BadPhotoError:
            return None
        landmarks = find_landmarks(self.check, image)
        if landmarks is None:
            return [torch.full((10,), torch.nan), *(torch.full((net.width,), torch.nan) for net in self.recognisers)]
        return [torch.from_numpy(landmarks).float().flatten(), *self.vectors_at(image, landmarks)]


def open_panel(session: Session, bundle: Bundle, judge: Judge, delta: Manifest) -> Panel:
    """Load the judges: those of the bundle and those of the configuration, less those that helped to make the edit.

    Args:
        session: the run.
        bundle: where the face encoder lies.
        judge: the embedded recogniser and face check.
        delta: the record of unlearning: its encoder and its locator exclude judges.

    Raises:
        ModelError: one of them cannot be loaded.
        ConfigError: two have the same name or are the same network, or too few are left.
    """
    params, device = session.config.judges, session.config.run.device
    nets = _embedded(bundle, judge, device) if params.embedded else []
    nets += [_load(entry, device) for entry in params.recognisers]
    for what in ("name", "network"):
        values = [getattr(net, what) for net in nets]
        if twice := [net.name for net, value in zip(nets, values, strict=True) if values.count(value) > 1]:
            raise ConfigError(
                f"Recognisers have the same {what}: {', '.join(twice)}", "Name each of them once in judges"
            )
    partial = {net.name: why for net in nets if (why := _partial(net, judge, delta))}
    allowed = [net for net in nets if net.name not in partial]
    if len(allowed) < params.min_recognisers:
        counted = f"{len(allowed)} recognisers may judge, {params.min_recognisers} are needed"
        raise ConfigError(
            "; ".join([counted, *partial.values()]),
            "Add recognisers with judges.recognisers, or lower judges.min_recognisers",
        )
    if stays_on_cpu(device) and any(net.file is not None for net in allowed):
        session.talk.note(f"onnxruntime has no provider for {device}: recognisers in ONNX run on the CPU")
    for why in partial.values():
        session.talk.note(f"{why}, so it does not judge")
    check = judge.check
    finder = digest_of([_SIGHT_VERSION, fingerprint_of(check.net.state_dict()), check.threshold])
    names = [f"landmarks-{finder[:32]}", *(f"faces-{digest_of([finder, net.fingerprint])[:32]}" for net in allowed)]
    caches = tuple(FeatureCache(session.run.features / name) for name in names)
    return Panel(check, tuple(allowed), digest_of([finder, *(net.fingerprint for net in allowed)]), caches)


def _embedded(bundle: Bundle, judge: Judge, device: str) -> list[JudgingNet]:
    nets = [from_embedded(judge.recogniser)]
    if bundle.face_encoder is not None:
        nets.append(load_onnx(RecogniserParams(name="face-encoder", model=bundle.folder / bundle.face_encoder), device))
    return nets


def _load(params: RecogniserParams, device: str) -> JudgingNet:
    if params.kind == "onnx":
        return load_onnx(params, device)
    folder = Path(params.model)
    # Insightface opens them by itself.
    for network in networks_in(folder):
        external_files(network)
    return from_insight(params, pack_recogniser(folder.parent.parent, folder.name))


def _partial(net: JudgingNet, judge: Judge, delta: Manifest) -> str | None:
    """Why a recogniser may not judge this delta; None if it may."""
    if delta.encoder.fingerprint in {net.network, _graph(net, delta)}:
        return f"{net.name} is the network that was edited"
    helped = delta.parameters["locate"]["method"] == "saliency"
    if helped and net.network == fingerprint_of(judge.recogniser.net.state_dict()):
        return f"{net.name} helped to make the mask (locate.method = saliency)"
    return None


def _graph(net: JudgingNet, delta: Manifest) -> str | None:
    """What an ONNX recogniser would be called as an encoder, where the edited encoder is such a network."""
    return None if net.file is None or lies_in_checkpoint(delta.encoder.tap) else network_fingerprint(net.file)


def _sight(rows: Sequence[Tensor]) -> Sight:
    landmarks = rows[0]
    found = bool(torch.isfinite(landmarks).all())
    return Sight(landmarks.double().view(5, 2).numpy() if found else None, tuple(rows[1:]))
