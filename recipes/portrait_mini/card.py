"""The model card of portrait-mini, from what the runs wrote down."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROWS = (
    ("image_encoder", "`image_encoder/`", "CLIP-type image encoder, 96 px, 37 tokens, 256 wide, 12 blocks"),
    ("face_encoder", "`face_encoder.onnx`", "ArcFace-type face encoder, 112 px, 512 features"),
    ("vae", "`vae/`", "AutoencoderTiny, factor 8, 8 channels"),
    ("decoder", "`vae/`", "its decoder, against a critic"),
    ("text", "`text_encoder/`, `tokenizer/`", "CLIP-type text encoder, 128 wide, 2 blocks"),
    ("a", "`a/`", "generator A: UNet and IP-Adapter base on `image_embeds`"),
    ("b", "`b/`", "generator B: UNet and IP-Adapter Plus on `penultimate`"),
    ("c", "`c/`", "generator C: IP-Adapter FaceID on the face encoder's unit vector, with A's UNet"),
    ("d", "`d/`", "generator D: UNet and IP-Adapter Plus on what enters five blocks, and on the pooled vector"),
    ("recogniser", "`recogniser/`", "face recogniser that measures"),
    ("face_check", "`face_check/`", "is there a face, and where are its landmarks"),
)

OPTIONAL = {
    "people": "sample people",
    "a/unet": "generator A",
    "b/unet": "generator B",
    "face_encoder.onnx": "the face encoder",
    "c/ip_adapter.safetensors": "generator C",
    "d/unet": "generator D",
}

HEAD = """\
---
license: apache-2.0
library_name: diffusers
tags: [image-generation, ip-adapter, faces, research]
---
# portrait-mini

portrait-mini is a small customised portrait generator, trained on a CPU. It has one image encoder, generators that
share it, and networks that judge what they draw. It is the laboratory of `ireu`: real enough that removing a person
from it means something, and small enough to ship. Pictures are 112 x 112 pixels. It is no product for drawing people.

## What it was trained on
It was trained on research photos of public figures: 16,456 photos of 5,669 people (LFW and PubFig83, 160 px crops),
less 200 people kept for choices. The figures below are of 55 other people, who were never trained on. The photos are
not part of it, and you cannot redistribute them. Generator A drew the sample people in `people/` from identities that
nobody has.

## What is shared, and what is not
- The image encoder and the face encoder learned identity from EdgeFace-XS (Idiap, BSD-3). So that network must not
  judge an edit of them. The image encoder began from an earlier one that was trained on the same photos.
- The recogniser learned from another network (a MobileFaceNet, MIT) that was asked about unchanged photos. It has a
  seed of its own. It shares the photos with the encoders, and the form of its layers with the face encoder.
- The face check learned landmarks from MTCNN's last stage (MIT).
- A and B share the encoder, the autoencoder and the text encoder. Their UNets have different widths and seeds. C is an
  adapter on A's UNet that reads the face encoder. All three learned likeness from EdgeFace-XS too, on an eighth of
  their pictures.

## Known limits
- The encoder was made from a few thousand people and a few core-hours. It tells people apart less well than its teacher
  does (see the figures).
- Generators A and B have seen some 290,000 and 210,000 pictures, and C's adapter 250,000. This is a fraction of what
  such networks need. So eyes and mouths are often wrong, most of all in pictures by C, which is told whom to draw and
  nothing of pose or light.
- The generators know twelve edits in prompts, and hardly anything else.
- Photos of children, and of people unlike those in two collections of press photos of public figures, are rare in what
  it learned from.
"""


def card(bundle: Path) -> str:
    """The text of the card, from what lies in the bundle and under its ``curves``."""
    curves = bundle / "curves"
    absent = [words for place, words in OPTIONAL.items() if not (bundle / place).exists()]
    lines = [HEAD]
    if absent:
        lines += [f"Not part of this version, still being trained: {', '.join(absent)}.", ""]
    lines += [
        "## Runs",
        "",
        "| model | what | seed | steps x batch | hours on one core | figures |",
        "|---|---|---|---|---|---|",
    ]
    digests: dict[str, str] = {}
    for key, place, what in ROWS:
        if not (curves / f"{key}.json").exists():
            continue
        facts = json.loads((curves / f"{key}.json").read_text())
        digests |= facts["data_sha256"]
        runs = [*facts.get("earlier", []), facts]
        told = [_then("-" if run[name] is None else run[name] for run in runs) for name in ("seed", "hours")]
        steps = _then(f"{run['steps']} x {run['batch']}" if run.get("batch") else run["steps"] for run in runs)
        row = (place, what, told[0], steps, told[1], _figures(curves / f"{key}.jsonl"))
        lines.append("| " + " | ".join(str(x) for x in row) + " |")
    lines += ["", "SHA-256 over names and bytes of the photos:", ""]
    lines += [f"- `{split}`: `{digest}`" for split, digest in sorted(digests.items())]
    evaluation = curves / "evaluation.json"
    if evaluation.exists():
        lines += ["", "## Portraits of people never trained on", "", "```json", evaluation.read_text().strip(), "```"]
    lines += [
        "",
        "`curves/` has the curves of all runs. `recipes/portrait_mini/` in the source says how to make it again.",
        "",
    ]
    return "\n".join(lines)


def _then(values: Iterable[Any]) -> str:
    return "; then ".join(map(str, values))


def _figures(curve: Path) -> str:
    """The last row of the curve that holds figures, on people never trained on where there are such."""
    if not curve.exists():
        return "-"
    rows = [json.loads(line) for line in curve.read_text().splitlines()]
    measured = [row for row in rows if "train" not in row]
    return _flat({k: v for k, v in measured[-1].items() if k not in ("step", "hours")}) if measured else "-"


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        # Curves of earlier versions have figures of both.
        inner = value.get("eval") or value.get("validation") or value
        return "; ".join(f"{k} {_flat(v)}" for k, v in inner.items() if k != "validation")
    return str(value)
