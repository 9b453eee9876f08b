"""Generators and judges of a verification, loaded together."""

from dataclasses import dataclass

from ireu_cli.drawing.embedded_judge import Judge, open_judge
from ireu_cli.drawing.open_panel import open_panel
from ireu_cli.drawing.panel import Panel
from ireu_cli.drawing.shots import EDITS
from ireu_cli.encoders.families import family_of
from ireu_cli.encoders.files.portrait import Bundle, find_bundle
from ireu_cli.errors import ConfigError
from ireu_cli.generators.generator import Generator, load_generators
from ireu_cli.manifest import Manifest, digest_of
from ireu_cli.session import Session


@dataclass(frozen=True)
class Show:
    """The generators of an encoder, with their bundle, the bundle's own judges, and the panel of judges."""

    bundle: Bundle
    generators: tuple[Generator, ...]
    judge: Judge
    panel: Panel

    @property
    def fingerprint(self) -> str:
        """Digest (hex) of everything that decides pictures and judgements, except encoders, photos and parameters."""
        return digest_of([self.bundle.prompt, EDITS, *(g.fingerprint for g in self.generators), self.panel.fingerprint])


def open_show(session: Session, delta: Manifest) -> Show | None:
    """Load the generators that `pictures.generators` names; None if the encoder has none or you want none.

    Raises:
        ConfigError: a generator or an edit that does not exist, or too few recognisers may judge the delta.
        ModelError: a part of the bundle cannot be loaded.
    """
    params, device = session.config.pictures, session.config.run.device
    source = session.config.encoder.source
    bundle = find_bundle(source)
    entries = () if bundle is None else bundle.entries(family_of(source, session.config.encoder.tap).reads)
    if bundle is None or not entries or params.generators == ("none",):
        return None
    names = [entry.name for entry in entries]
    for key, asked, known in (("generators", params.generators, ["all", *names]), ("edits", params.edits, [*EDITS])):
        if unknown := sorted(set(asked) - set(known)):
            raise ConfigError(f"pictures.{key} names {unknown[0]}, which does not exist", f"Use {', '.join(known)}")
    with session.timed("load_generators"):
        chosen = None if "all" in params.generators else params.generators
        wanted = load_generators(source, {entry.tap for entry in entries}, device, names=chosen)
        judge = open_judge(bundle, device)
        panel = open_panel(session, bundle, judge, delta)
    together = session.config.run.pictures_together
    return Show(bundle, tuple(one.with_settings(together=together) for one in wanted), judge, panel)
