"""`ireu inspect` for a gate: the encoder that it belongs to, and how often it takes others for somebody removed."""

from pathlib import Path

from ireu_cli.encoders.gate.network import FILE, INPUT, OUTPUT, read_gate
from ireu_cli.values import Json

_ADVICE = "keep it to those who run the service, because whoever has it can ask it about any photo"


def gate_told(source: Path, own: dict[str, Json] | None) -> dict[str, Json] | None:
    """Describe a gate as plain values; None if it is something else.

    Args:
        source: the file, or the folder of an export.
        own: what the record of the export says, if there is one; its advice becomes that for a gate.

    Raises:
        ModelError: the file is no ONNX network.
    """
    path = source / FILE if source.is_dir() and own is not None else source
    if path.suffix != ".onnx" or not path.is_file():
        return None
    gate = read_gate(path)
    if gate is None:
        return None
    if own is not None:
        own["note"] = _ADVICE
    return {
        "kind": "gate, which says of embeddings whether they are of somebody who was removed",
        "encoder": gate.encoder,
        "false_alarm_rate": gate.false_alarm_rate,
        "input": f"{INPUT}: float32 (n, {gate.width})",
        "output": f"{OUTPUT}: bool (n,)",
    }
