"""The card beside a gate: what it is, how to ask it, and what it cannot do."""

from dataclasses import dataclass
from pathlib import Path

from ireu_cli.coverage import Coverage
from ireu_cli.encoders.gate.network import INPUT, OUTPUT
from ireu_cli.encoders.systems import SYSTEMS
from ireu_cli.exporting.model_card import CARD
from ireu_cli.store.files import write_bytes
from ireu_cli.values import Json

EXAMPLE = f"""import numpy as np
import onnxruntime

gate = onnxruntime.InferenceSession("gate.onnx", providers=["CPUExecutionProvider"])
print(gate.get_modelmeta().custom_metadata_map["ireu.encoder"])  # as `ireu inspect` says of your encoder

faces = np.load("faces.npy").astype(np.float32)  # its embeddings: one row for each face in the picture
removed = gate.run(["{OUTPUT}"], {{"{INPUT}": np.atleast_2d(faces)}})[0]
if removed.any():
    print("refused")
"""
"""How to ask a gate, in ten lines; the pages of the project show the same."""


@dataclass(frozen=True)
class GateTold:
    """What the card says.

    Attributes:
        encoder: the fingerprint of the encoder.
        width: the number of features of an embedding.
        false_alarm_rate: what all detectors together were granted, from 0 to 1.
        verification: the outcome in the report of the delta, None without a report.
        compared: what was found on photos, None without photos; see `compared`.
        covered: the systems that only a gate covers.
    """

    encoder: str
    width: int
    false_alarm_rate: float
    verification: str | None
    compared: dict[str, Json] | None
    covered: list[Coverage]


def write_gate_card(folder: Path, told: GateTold) -> None:
    """Write `README.md` beside a gate. It names nobody."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(library_name="onnx", tags=["unlearning", "ireu", "gate"])
    write_bytes(folder / CARD, f"---\n{data.to_yaml()}\n---\n{_text(told)}".encode())


def _text(told: GateTold) -> str:
    rows = "\n".join(f"| {SYSTEMS[one.system].title} | {one.status}: {one.why} |" for one in told.covered)
    verified = (
        "The edit that the detectors come from was **not verified** by `ireu verify`, or no report was available."
        if told.verification is None
        else f"The report of `ireu verify` on the edit that the detectors come from says: **{told.verification}**."
    )
    return f"""
# Gate

Some people have asked that portrait generators do not draw them. This gate says of a face whether it is one of them. It
never says which one. Put it in front of a generator that has no identity encoder, and refuse a picture if the gate
finds anybody in it.

| | |
|---|---|
| encoder | fingerprint `{told.encoder}`; `ireu inspect` prints that of a file |
| input | `{INPUT}`: float32 (n, {told.width}), what the encoder gives for n faces, raw or at length one |
| output | `{OUTPUT}`: bool (n,), true for somebody who was removed, and for rows with NaN or infinity |
| false alarms | at most {told.false_alarm_rate:.3g} of other people's photos, as it was set |
| opset | 13 |

```python
{EXAMPLE}```

Detect and align faces as the encoder needs it: an aligned face of 112 px for ArcFace. Ask about every face in every
picture that comes in, also in pictures that only show a style or a background. Embeddings of another encoder look the
same to the gate, and its answers about them mean nothing.

{verified} {_tried(told.compared)}

**Keep the file to those who run the service.** It has no names and no photos, but whoever has it can ask it about any
photo. `ireu.json` records how it was made.

## Generators

No edit of an encoder reaches these:

| system | |
|---|---|
{rows}
"""


def _tried(compared: dict[str, Json] | None) -> str:
    if compared is None:
        return "The gate was not tried on photos when it was written."
    targets, retained = (compared[group] for group in ("targets", "retained"))
    return (
        f"When it was written, it found {targets['removed']} of {targets['photos']} photos of people to remove, and "
        f"{retained['removed']} of {retained['photos']} of others."
    )
