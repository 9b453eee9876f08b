"""Which recognisers may judge a delta: none that helped to make the edit, or was edited."""

from ireu_cli.drawing.embedded_judge import Judge
from ireu_cli.encoders.families import fingerprint_in
from ireu_cli.judges.judging import JudgingNet
from ireu_cli.manifest import Manifest


def why_partial(net: JudgingNet, judge: Judge, delta: Manifest) -> str | None:
    """Why a recogniser may not judge this delta; None if it may."""
    if delta.encoder.fingerprint in {net.network, _graph(net, delta)}:
        return f"{net.name} is the network that was edited"
    helped = delta.parameters["locate"]["method"] == "saliency"
    if helped and net.network == judge.recogniser.fingerprint:
        return f"{net.name} helped to make the mask (locate.method = saliency)"
    return None


def _graph(net: JudgingNet, delta: Manifest) -> str | None:
    """The fingerprint that an ONNX recogniser would have as an encoder, if the edited encoder is such a network."""
    return None if net.file is None else fingerprint_in(net.file, delta.encoder.tap)
