"""Load the judges of a verification, and refuse those that helped to make the edit."""

from pathlib import Path

from ireu_cli.drawing.embedded_judge import Judge
from ireu_cli.drawing.impartial import why_partial
from ireu_cli.drawing.panel import SIGHT_VERSION, Panel
from ireu_cli.encoders.files.face_pack import networks_in
from ireu_cli.encoders.files.fingerprint import fingerprint_of
from ireu_cli.encoders.files.networks import external_files
from ireu_cli.encoders.files.onnx_session import stays_on_cpu
from ireu_cli.encoders.files.portrait import Bundle
from ireu_cli.errors import ConfigError
from ireu_cli.faces.insight import pack_recogniser
from ireu_cli.judges.judging import JudgingNet, from_embedded
from ireu_cli.judges.onnx_recogniser import from_insight, load_onnx
from ireu_cli.manifest import Manifest, digest_of
from ireu_cli.params import RecogniserParams
from ireu_cli.session import Session
from ireu_cli.store.features import FeatureCache


def open_panel(session: Session, bundle: Bundle, judge: Judge, delta: Manifest) -> Panel:
    """Load the judges of the bundle and of the configuration, except those that helped to make the edit.

    Args:
        session: the run.
        bundle: where the face encoder lies.
        judge: the embedded recogniser and face check.
        delta: the record of unlearning; its encoder and its locator exclude judges.

    Raises:
        ModelError: one of them cannot be loaded.
        ConfigError: two have the same name or are the same network, or too few remain.
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
    partial = {net.name: why for net in nets if (why := why_partial(net, judge, delta))}
    allowed = [net for net in nets if net.name not in partial]
    if len(allowed) < params.min_recognisers:
        counted = f"{len(allowed)} recognisers may judge, and {params.min_recognisers} are needed"
        raise ConfigError(
            "; ".join([counted, *partial.values()]),
            "Add recognisers with judges.recognisers, or lower judges.min_recognisers",
        )
    if stays_on_cpu(device) and any(net.file is not None for net in allowed):
        session.talk.note(f"onnxruntime has no provider for {device}: recognisers in ONNX run on the CPU")
    for why in partial.values():
        session.talk.note(f"{why}, so it does not judge")
    check = judge.check
    finder = digest_of([SIGHT_VERSION, fingerprint_of(check.net.state_dict()), check.threshold])
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
