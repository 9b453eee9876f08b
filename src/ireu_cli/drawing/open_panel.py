"""Load the judges of a verification, and refuse those that helped to make the edit."""

from ireu_cli.drawing.embedded_judge import Judge
from ireu_cli.drawing.impartial import why_partial
from ireu_cli.drawing.load_judges import embedded_judges, load_judge
from ireu_cli.drawing.panel import SIGHT_VERSION, Panel
from ireu_cli.encoders.files.onnx_session import stays_on_cpu
from ireu_cli.encoders.files.portrait import Bundle
from ireu_cli.errors import ConfigError
from ireu_cli.manifest import Manifest, digest_of
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
    nets = embedded_judges(bundle, judge, device) if params.embedded else []
    nets += [load_judge(entry, device) for entry in params.recognisers]
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
    finder = digest_of([SIGHT_VERSION, check.fingerprint, check.threshold])
    names = [f"landmarks-{finder[:32]}", *(f"faces-{digest_of([finder, net.fingerprint])[:32]}" for net in allowed)]
    caches = tuple(FeatureCache(session.run.features / name) for name in names)
    return Panel(check, tuple(allowed), digest_of([finder, *(net.fingerprint for net in allowed)]), caches)
