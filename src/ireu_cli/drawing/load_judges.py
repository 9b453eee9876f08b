"""The recognisers that can judge: those of the bundle, and those of the configuration."""

from pathlib import Path

from ireu_cli.drawing.embedded_judge import Judge
from ireu_cli.encoders.files.face_pack import networks_in
from ireu_cli.encoders.files.networks import external_files
from ireu_cli.encoders.files.portrait import Bundle
from ireu_cli.faces.insight import pack_recogniser
from ireu_cli.judges.judging import JudgingNet, from_embedded
from ireu_cli.judges.onnx_recogniser import from_insight, load_onnx
from ireu_cli.params import RecogniserParams


def embedded_judges(bundle: Bundle, judge: Judge, device: str) -> list[JudgingNet]:
    """The recogniser of a bundle, and its face encoder if it has one.

    Raises:
        ModelError: one of them cannot be loaded.
    """
    nets = [from_embedded(judge.recogniser)]
    if bundle.face_encoder is not None:
        nets.append(load_onnx(RecogniserParams(name="face-encoder", model=bundle.folder / bundle.face_encoder), device))
    return nets


def load_judge(params: RecogniserParams, device: str) -> JudgingNet:
    """A recogniser of the configuration.

    Raises:
        ModelError: it cannot be loaded.
    """
    if params.kind == "onnx":
        return load_onnx(params, device)
    folder = Path(params.model)
    # Insightface opens them by itself.
    for network in networks_in(folder):
        external_files(network)
    return from_insight(params, pack_recogniser(folder.parent.parent, folder.name))
