"""Encoders at the size that people deploy, random weights: located, unlearned and exported by the four commands.

    python benchmarks/true_size.py --work DIR --size vit-h-14 [--parts request verify export locate]

request: `locate` and `unlearn` for one person with five photos, twice: the second request finds the statistics ready,
    and its time is split as its manifest says.
verify: `verify` of the second request, in features and without attacks.
export: memory that the process allocates (RssAnon; mapped pages of files are not counted, as they can be dropped), less
    what it holds before the step begins, beside the edited weights; and its time beside a plain copy of the file,
    flushed to the disk, in turn, medians. Without photos, as an export runs on a machine that has none; in a run
    folder that saw the original before, and in a new one.
locate: photos encoded in a second, as a share of what the bare forward pass does over pixels in memory, in turn.

Needs IREU_DATA, a folder with `faces/eval` and `faces/train`. Weights are float32, but float16 for ViT-bigG and
EVA02-CLIP, which their publishers ship so, and for the files of image-to-video pipelines. Without a size's file it is
made first.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, SiglipVisionConfig

from arcface_net import BLOCKS, write_arcface
from ireu_cli.encoders.eva.tower import EvaConfig, EvaTower
from ireu_cli.encoders.families import load_encoder
from ireu_cli.encoders.towers.bare import BareTower
from ireu_cli.encoders.towers.siglip import SiglipTower
from ireu_cli.faces.folder import scan_people
from ireu_cli.faces.read import PhotoReader
from ireu_cli.layouts.table import layout_named
from ireu_cli.layouts.wan import WAN
from ireu_cli.params import ARCFACE_LANDMARKS, DataParams, EncoderParams
from target_draws import LANDMARKS, ireu, link_photos


@dataclass(frozen=True)
class Size:
    """A published encoder."""

    hidden: int
    inner: int
    blocks: int
    projection: int
    activation: str = "gelu"
    side: int = 224
    dtype: torch.dtype = torch.float32
    tap: str = "penultimate"
    """What generators that mount it read."""
    is_siglip: bool = False
    layout: str = "clip-folder"

    @property
    def config(self) -> CLIPVisionConfig | SiglipVisionConfig:
        """As it is published."""
        sizes: dict[str, Any] = {
            "hidden_size": self.hidden, "intermediate_size": self.inner, "num_hidden_layers": self.blocks,
            "num_attention_heads": 16, "patch_size": 14, "image_size": self.side,
            "hidden_act": self.activation,
        }  # fmt: skip
        if self.is_siglip:
            return SiglipVisionConfig(**sizes)
        return CLIPVisionConfig(**sizes, projection_dim=self.projection)


_DEPTHS = "block-4+block-8+block-12+block-16+block-20"
"""What PuLID reads of EVA02-CLIP beside the head."""
SIZES = {
    "tiny": Size(64, 128, 4, 32, side=56),
    "vit-l-14": Size(1024, 4096, 24, 768, "quick_gelu"),
    "vit-l-14-336": Size(1024, 4096, 24, 768, "quick_gelu", side=336),
    "vit-h-14": Size(1280, 5120, 32, 1024),
    "vit-h-14-bare": Size(1280, 5120, 32, 1024, dtype=torch.float16, layout="clip-vision-folder"),
    "vit-h-14-wan": Size(1280, 5120, 32, 1024, dtype=torch.float16, layout="wan"),
    "siglip-so400m": Size(1152, 4304, 27, 0, "gelu_pytorch_tanh", side=384, tap="pooled", is_siglip=True),
    "eva02-l-14-336": Size(1024, 2730, 24, 768, side=336, dtype=torch.float16, tap=_DEPTHS, layout="eva-clip"),
    "vit-bigg-14": Size(1664, 8192, 48, 1280, dtype=torch.float16, tap="image_embeds"),
}
_PAUSE = 10
"""Seconds between copies and exports: a disk that took a burst takes the next one slower."""


def main() -> None:
    """Measure and print."""
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    place = _place(options)
    people = _people(options)
    run = ["--run-dir", str(options.work / f".ireu-{options.size}"), "--quiet"]
    delta = options.work / f"{options.size}-second.safetensors"
    if "request" in options.parts or not delta.exists():
        _request(options, place, people, run)
    if "verify" in options.parts:
        _verify(options, delta, run)
    if "export" in options.parts:
        _export(options, place, delta)
    if "locate" in options.parts:
        _locate(options, place, people)


def _place(options: argparse.Namespace) -> Path:
    """The encoder, made where it is not there."""
    if options.size in BLOCKS:
        path: Path = options.work / f"{options.size}.onnx"
        return path if path.exists() else write_arcface(path, options.size)
    place: Path = options.work / options.size
    size = SIZES[options.size]
    if size.layout == "wan":
        file = place / WAN.file
        return file if file.exists() else _make_wan(size, file)
    if size.layout == "eva-clip":
        file = place / layout_named(size.layout).file
        return file if file.exists() else _make_eva(size, file)
    if not (place / "model.safetensors").exists():
        _make(size, place)
    return place


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--size", choices=[*SIZES, *BLOCKS], required=True)
    parser.add_argument("--parts", nargs="+", choices=["request", "verify", "export", "locate"], default=["export"])
    parser.add_argument("--retained", type=int, default=50, help="retained people, two photos each")
    parser.add_argument("--photos", type=int, default=5, help="photos of each of the two people to unlearn")
    parser.add_argument("--person", type=int, default=0, help="of eval, the first of the two to unlearn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tap", help="another than the generators of this encoder read")
    options = parser.parse_args()
    options.tap = options.tap or (SIZES[options.size].tap if options.size in SIZES else "embedding")
    return options


def _make(size: Size, place: Path) -> None:
    """An encoder whose weights are drawn as those of a network before training are."""
    config, bare = size.config, size.layout == "clip-vision-folder"
    kind: Any = SiglipTower if size.is_siglip else BareTower if bare else CLIPVisionModelWithProjection
    config.architectures = ["SiglipVisionModel" if size.is_siglip else "CLIPVisionModel" if bare else kind.__name__]
    with torch.device("meta"):
        outline = kind(config).state_dict()
    place.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(place)
    state = _drawn({name: tuple(tensor.shape) for name, tensor in outline.items()}, size.dtype)
    save_file(state, place / "model.safetensors", {"format": "pt"})


def _make_wan(size: Size, file: Path) -> Path:
    """The same under Wan's names and in its shapes, beside as many weights as the text encoder has."""
    width, inner = size.hidden, size.inner
    shapes: dict[str, tuple[int, ...]] = {
        "visual.cls_embedding": (1, 1, width),
        "visual.pos_embedding": (1, (size.side // 14) ** 2 + 1, width),
        "visual.head": (width, size.projection),
        "visual.patch_embedding.weight": (width, 3, 14, 14),
    }
    for norm in ("pre_norm", "post_norm"):
        shapes |= {f"visual.{norm}.weight": (width,), f"visual.{norm}.bias": (width,)}
    layers = {"attn.to_qkv": (3 * width, width), "attn.proj": (width, width), "mlp.0": (inner, width),
              "mlp.2": (width, inner)}  # fmt: skip
    for number in range(size.blocks):
        block = f"visual.transformer.{number}"
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
        for layer, shape in layers.items():
            shapes |= {f"{block}.{layer}.weight": shape, f"{block}.{layer}.bias": shape[:1]}
    # XLM-RoBERTa large: its vocabulary, and 24 blocks of twelve squares each.
    shapes |= {"textual.vocabulary.weight": (250_002, 1024), "log_scale": (1,)}
    shapes |= {f"textual.blocks.{number}.weight": (12 * 1024, 1024) for number in range(24)}
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(_drawn(shapes, size.dtype), file)
    return file


def _make_eva(size: Size, file: Path) -> Path:
    """EVA02-CLIP's tower below `visual.`, beside as many weights as its text encoder has."""
    with torch.device("meta"):
        tower = EvaTower(EvaConfig(size.hidden, size.inner, size.blocks, 14, size.side, size.projection))
    shapes = {f"visual.{name}": tuple(tensor.shape) for name, tensor in tower.state_dict().items()}
    # CLIP's vocabulary, and 12 blocks of twelve squares each.
    shapes |= {"text.vocabulary.weight": (49_408, 768), "logit_scale": (1,)}
    shapes |= {f"text.blocks.{number}.weight": (12 * 768, 768) for number in range(12)}
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(_drawn(shapes, size.dtype), file)
    return file


def _drawn(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Weights of some shapes. Fan-in scaling keeps the variance of activations from block to block."""
    draw, state = torch.Generator().manual_seed(0), {}
    for name, shape in shapes.items():
        if "norm" in name or "_ln." in name or name.endswith("bias"):
            state[name] = torch.full(shape, float("weight" in name), dtype=dtype)
        else:
            is_embedding = name.endswith("_embedding") or ("embedding" in name and len(shape) <= 2)
            is_embedding |= name.endswith(("cls_token", "pos_embed"))
            fan_in = 1 if is_embedding else shape[0] if name.endswith("head") else math.prod(shape[1:])
            state[name] = (torch.randn(shape, generator=draw) * fan_in**-0.5).to(dtype)
    return state


def _people(options: argparse.Namespace) -> dict[str, Path]:
    """Two people to unlearn, one after the other, and some to retain, linked from IREU_DATA."""
    faces = Path(os.environ["IREU_DATA"]) / "faces"
    targets = [path for path in sorted((faces / "eval").iterdir()) if len(list(path.iterdir())) >= options.photos]
    retained = [path for path in sorted((faces / "train").iterdir()) if len(list(path.iterdir())) >= 3]
    folders = {
        f"first-{options.person}": [(targets[options.person], options.photos)],
        f"second-{options.person}": [(targets[options.person + 1], options.photos)],
        f"retain-{options.retained}": [(path, 2) for path in retained[: options.retained]],
    }
    for name, people in folders.items():
        for path, count in people:
            link_photos(options.work / name / path.name, sorted(path.iterdir())[:count])
    return {name.split("-")[0]: options.work / name for name in folders}


def _request(options: argparse.Namespace, place: Path, people: dict[str, Path], run: list[str]) -> None:
    """Both people, one after the other; the second with everything prepared."""
    for name in ("first", "second"):
        mask, delta = (options.work / f"{options.size}-{name}{ending}" for ending in (".pt", ".safetensors"))
        sets = ["--set", f"data.landmarks={LANDMARKS}", "--set", "data.retain_holdout=0", "--set", "run.batch_size=8"]
        folders = ["--targets", str(people[name]), "--retain", str(people["retain"])]
        encoder = ["--encoder", str(place), "--tap", options.tap, "--method", "all"]
        ireu("locate", *run, *folders, *encoder, *sets, "--force", "-o", str(mask))
        told = _run("unlearn", *run, "--mask", str(mask), *_method(options.size), "--force", "-o", str(delta))
        split = json.loads(delta.with_name(f"{delta.name}.json").read_text())["timings"]
        words = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in split.items())
        print(f"{options.size}: {name} request, {options.photos} photos: {told}, of which {words}", flush=True)


def _verify(options: argparse.Namespace, delta: Path, run: list[str]) -> None:
    """The second request. Random weights find nobody, so every verdict but an error will do."""
    out = options.work / f"{options.size}-report"
    sets = ["--set", "attacks.suite=none", "--set", "record.case_id=0"]
    told = _run("verify", *run, "--delta", str(delta), *sets, "--force", "-o", str(out), ok=(0, 4, 5))
    print(f"{options.size}: verify, {options.photos} photos: {told}", flush=True)


def _run(*arguments: str, ok: tuple[int, ...] = (0,)) -> str:
    """Run a command, and say its time, its user time, and the most memory that it allocated for itself."""
    before, start = os.times().children_user, time.perf_counter()
    command = [sys.executable, "-m", "ireu_cli", *arguments]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child,
        watched(child.pid) as seen,
    ):
        _, words = child.communicate()
    if child.returncode not in ok:
        raise SystemExit(f"ireu {' '.join(arguments)} ended with {child.returncode}: {words}")
    whole, user = time.perf_counter() - start, os.times().children_user - before
    return f"{whole:.1f} s, user {user:.1f} s, peak {seen['peak'] / 1e6:.0f} MB"


def _method(size: str) -> list[str]:
    """The method and its settings. `gated` is refused for EVA02-CLIP; there, the blocks before block 4 are trained."""
    if size in SIZES and SIZES[size].layout == "eva-clip":
        return ["--method", "global", "--layers", "blocks:0-3", "--steps", "2", "--set", "unlearn.batch=1"]
    gated = ["--set", "gated.max_false_alarm=0.4", "--set", "gated.people=2", "--set", "gated.copies="]
    return [*gated, "--set", "gated.rank=8", "--set", f"record.case_id={time.time_ns()}"]


def _export(options: argparse.Namespace, place: Path, delta: Path) -> None:
    """Time and memory of exports without photos, in turn with copies: of an original not read before, and again."""
    source = place if place.is_file() else place / "model.safetensors"
    runs, out = options.work / "alone", options.work / "exported"
    copies: list[float] = []
    peaks: list[float] = []
    firsts: list[float] = []
    agains: list[float] = []
    shutil.rmtree(runs, ignore_errors=True)
    for _ in range(options.rounds + 1):
        time.sleep(_PAUSE)
        copies.append(_timed(lambda: _copy(source, options.work / "copy.safetensors")))
        (options.work / "copy.safetensors").unlink()
        for seconds, run in ((firsts, runs / f"first-{len(firsts)}"), (agains, runs / "again")):
            time.sleep(_PAUSE)
            told = _measured(place, delta, out, run)
            seconds.append(told["seconds"])
            peaks.append(told["peak"] - told["before"])
            shutil.rmtree(out)
    shutil.rmtree(runs)
    edited = _edited_bytes(delta)
    copy, first, again = (statistics.median(seconds[1:]) for seconds in (copies, firsts, agains))
    print(f"{options.size}: file {source.stat().st_size / 1e6:.0f} MB, edited weights {edited / 1e6:.0f} MB")
    print(f"copy {copy:.2f} s, export {again:.2f} s, ratio {again / copy:.2f}")
    print(f"first export of this original in a run folder {first:.2f} s, ratio {first / copy:.2f}")
    allowed = 1.15 * edited + 300e6
    print(f"peak beyond the start {max(peaks) / 1e6:.0f} MB, of {allowed / 1e6:.0f} MB allowed", flush=True)


def _edited_bytes(delta: Path) -> int:
    from ireu_cli.store.artifacts import read_delta

    return sum(tensor.numel() * tensor.element_size() for tensor in read_delta(delta).tensors.values())


def _measured(place: Path, delta: Path, out: Path, run: Path) -> dict[str, float]:
    """Export in a process of its own, whose memory is watched by a thread of it."""
    code = "import sys; sys.path[:0] = sys.argv[1:2]; import true_size; true_size.exported(*sys.argv[2:])"
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(place), str(delta), str(out), str(run)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(told.splitlines()[-1])
    return found


def exported(place: str, delta: str, out: str, run: str) -> None:
    """Export without photos, and print seconds and bytes; everything that the step imports is imported before."""
    import transformers.models.clip.modeling_clip  # noqa: F401

    from ireu_cli.config import load_config
    from ireu_cli.exporting.run import run_export
    from locate_overhead import Silent

    torch.set_num_threads(max(1, len(os.sched_getaffinity(0))))
    flags: dict[str, object] = {"encoder.source": place, "run.run_dir": run}
    resolved = load_config(None, {}, flags, cwd=Path(out).parent)
    with watched() as seen:
        seconds = _timed(lambda: run_export(resolved, Silent(), Path(delta), Path(out), force=True))
    print(json.dumps({"seconds": seconds, **seen}))


@contextmanager
def watched(process: int | str = "self") -> Iterator[dict[str, float]]:
    """Memory that a process allocated for itself: before, and at its peak, looked at every five milliseconds."""
    seen = {"before": _allocated(process), "peak": 0.0}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            seen["peak"] = max(seen["peak"], _allocated(process))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _allocated(process: int | str) -> float:
    """In bytes; nothing of another process that has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    for line in lines:
        if line.startswith("RssAnon"):
            return float(line.split()[1]) * 1024
    if process != "self":
        return 0.0
    raise RuntimeError("this system does not say how much memory a process has")


def _copy(source: Path, out: Path) -> None:
    shutil.copyfile(source, out)
    with out.open("r+b") as file:
        os.fsync(file.fileno())


def _locate(options: argparse.Namespace, place: Path, people: dict[str, Path]) -> None:
    """Rounds in turn; the first of each is not counted."""
    from ireu_cli import session
    from ireu_cli.config import load_config
    from ireu_cli.locating.run import run_locate
    from locate_overhead import Silent

    encoder = load_encoder(EncoderParams(source=str(place), tap=options.tap), ARCFACE_LANDMARKS, "cpu")
    folders = [people["first"], people["retain"]]
    photos = [photo for folder in folders for photo in scan_people(folder, "--targets", "one person").flat]
    reader = PhotoReader(DataParams(), None)
    pixels = encoder.pixels([reader.image(photo) for photo in photos])
    flags = {
        "encoder.source": str(place),
        "encoder.tap": options.tap,
        "data.targets": folders[0],
        "data.retain": folders[1],
        "data.retain_holdout": 0.0,
        "locate.method": "variance",
        "run.batch_size": 4,
    }
    bare, whole = [], []
    for number in range(options.rounds + 1):
        bare.append(_timed(lambda: [encoder.encode(part, options.tap) for part in torch.split(pixels, 4)]))
        run = options.work / f".locate-{number}"
        shutil.rmtree(run, ignore_errors=True)
        resolved = load_config(None, {}, {**flags, "run.run_dir": run}, cwd=options.work)
        with mock.patch.object(session, "load_encoder", return_value=encoder):
            whole.append(_timed(lambda: run_locate(resolved, Silent(), run / "mask.pt", force=True)))  # noqa: B023
        shutil.rmtree(run)
    each = [len(photos) / statistics.median(times[1:]) for times in (bare, whole)]
    print(f"{options.size}: {len(photos)} photos; bare forward {each[0]:.3f} photos/s, locate {each[1]:.3f} photos/s")
    print(f"share {each[1] / each[0]:.3f}", flush=True)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
