"""Generators: the standard diffusers pipeline with a standard IP-Adapter, which gets features instead of photos.

A generator's picture is a function of features, null features, prompt and seed. So passing the edited encoder's
features is the same as mounting that encoder.
"""

import contextlib
import copy
import hashlib
import inspect
import json
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.fingerprint import fingerprint_of
from ireu_cli.encoders.files.portrait import Bundle, GeneratorEntry, find_bundle
from ireu_cli.encoders.files.settings import read_settings, told_as_model_error
from ireu_cli.encoders.files.tensor_file import open_file
from ireu_cli.encoders.preprocessing import quiet_transformers
from ireu_cli.encoders.vision_transformers import VISION_TRANSFORMERS
from ireu_cli.errors import ModelError
from ireu_cli.generators.mount import Mount
from ireu_cli.generators.mounts import mount_of
from ireu_cli.generators.parts import check_scheduler, check_tokenizer, read_model
from ireu_cli.generators.pipelines import digest_of_files, open_pipeline
from ireu_cli.generators.together import a_photo_each
from ireu_cli.params import Tap
from ireu_cli.support.made import batched
from ireu_cli.values import DTYPES, RgbImage

_INDECISIVE = frozenset({"_diffusers_version", "_name_or_path", "dtype", "torch_dtype", "transformers_version"})
"""Entries of a model's config.json that depend on the library that wrote it and do not change pictures."""
_SMALL = 50_000_000
"""The number of weights from which on one picture keeps several cores busy."""


@dataclass(frozen=True)
class ToDraw:
    """What a picture is drawn from.

    Attributes:
        feature: float (d,) or (tokens, d), at the generator's tap.
        null: the same, of the null image under guidance (`null_of`).
        prompt: the whole prompt.
        seed: the noise.
    """

    feature: Tensor
    null: Tensor
    prompt: str
    seed: int


@dataclass(frozen=True)
class Generator:
    """A customised portrait generator without its image encoder.

    `name` tells it from the bundle's other generators. `tap` is the tensor that it reads from the encoder.
    `fingerprint` is a SHA-256 (hex) over all weights and settings that decide a picture. Pictures are `side` x `side`
    pixels, and up to `together` of them are drawn in one call.
    """

    name: str
    tap: Tap
    fingerprint: str
    side: int
    steps: int
    guidance: float
    scale: float
    pipeline: Any
    together: int = 1

    def with_settings(
        self, *, guidance: float | None = None, scale: float | None = None, together: int | None = None
    ) -> Self:
        """The same generator with another guidance, another scale of the adapter, or other calls."""
        return replace(
            self,
            guidance=self.guidance if guidance is None else guidance,
            scale=self.scale if scale is None else scale,
            together=self.together if together is None else together,
        )

    def null_of(self, encoder: ImageEncoder) -> Tensor:
        """The pipeline's null image under guidance: float32 (d,) or (tokens, d), on the CPU."""
        return self._mount.null(encoder, self.tap)

    @property
    def bits(self) -> list[str]:
        """What decides the bits of a picture, except `guidance` and `scale`: last bits depend on how many go together.

        A generator that draws one by one is named by its fingerprint alone.
        """
        return [self.fingerprint, *([f"together {self.together}"] if self.together > 1 else [])]

    @property
    def _mount(self) -> Mount:
        return mount_of(type(self.pipeline))

    def draw(self, features: Tensor, null: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> list[RgbImage]:
        """Draw pictures, `together` in each call.

        Args:
            features: float (n, d) or (n, tokens, d), at `tap`.
            null: float (d,) or (tokens, d), the null image under guidance (`null_of`).
            prompts: one for each picture.
            seeds: one for each picture.
        """
        rows = zip(features, prompts, seeds, strict=True)
        asked = [ToDraw(feature, null, prompt, seed) for feature, prompt, seed in rows]
        return [picture for part in batched(asked, self.together) for picture in self.draw_together(part)]

    def draw_one(self, asked: ToDraw) -> RgbImage:
        """Draw a picture through the stock pipeline, alone."""
        return self.draw_together([asked])[0]

    def draw_together(self, asked: Sequence[ToDraw]) -> list[RgbImage]:
        """Draw pictures in one call of the stock pipeline.

        A picture is the same in every batch, except for last bits: a pixel may differ by 1 in 255.
        """
        drawn = self._call(self.pipeline, asked, self.steps, "np")
        return list(np.asarray((drawn * 255).round(), dtype=np.uint8))

    @property
    def is_small(self) -> bool:
        """Whether one picture at a time leaves most of a processor's cores idle."""
        return sum(weight.numel() for part in self._networks for weight in part.parameters()) < _SMALL

    def copy(self) -> Self:
        """The same generator for another thread: its parts keep settings of their own, and share their weights."""
        shared = {id(x): x for part in self._networks for x in (*part.parameters(), *part.buffers())}
        return replace(self, pipeline=copy.deepcopy(self.pipeline, shared))

    @property
    def _networks(self) -> list[torch.nn.Module]:
        return [part for part in self.pipeline.components.values() if isinstance(part, torch.nn.Module)]

    def sketch(
        self, features: Tensor, null: Tensor, prompts: Sequence[str], seeds: Sequence[int], steps: int
    ) -> Tensor:
        """Draw in few steps, with gradients from the pictures back to `features`.

        Returns:
            Float (n, 3, side, side) in [0, 1].
        """
        # The pipeline's own code without the decorator that switches gradients off.
        call = inspect.unwrap(type(self.pipeline).__call__)

        def traced(**arguments: Any) -> Any:
            return call(self.pipeline, **arguments)

        rows = zip(features, prompts, seeds, strict=True)
        asked = [ToDraw(feature, null, prompt, seed) for feature, prompt, seed in rows]
        with torch.enable_grad():
            drawn = [self._call(traced, part, steps, "pt") for part in batched(asked, self.together)]
        return torch.cat(drawn)

    def _call(self, call: Any, asked: Sequence[ToDraw], steps: int, kind: str) -> Any:
        """Pictures of one call: float (n, side, side, 3) as an array, or (n, 3, side, side) as a tensor."""
        # The pipeline keeps this setting, and may draw with another one next.
        self.pipeline.set_ip_adapter_scale(self.scale)
        wanted = zip(*((one.feature, one.null) for one in asked), strict=True)
        photos, nulls = (torch.stack(part).to(self.pipeline.device, self.pipeline.dtype) for part in wanted)
        with a_photo_each(self.pipeline, len(asked)):
            return call(
                prompt=[one.prompt for one in asked],
                **self._mount.embeds(photos, nulls, self.guidance),
                generator=[torch.Generator().manual_seed(one.seed) for one in asked],
                num_inference_steps=steps,
                height=self.side,
                width=self.side,
                output_type=kind,
            ).images


def load_generators(
    encoder_source: str,
    taps: Collection[Tap] | None,
    device: str,
    embedded: Path | None = None,
    names: Collection[str] | None = None,
) -> tuple[Generator, ...]:
    """Load the generators that share the encoder, in the order of the bundle.

    Args:
        encoder_source: `encoder.source`; an encoder that is no bundle has no generators.
        taps: only generators that read one of these; None for all that read the vision transformer.
        device: torch device; weights are float32 on any.
        embedded: stands in for the package's own bundle.
        names: only generators that are called so; None for all.

    Raises:
        ModelError: a part of the bundle is missing or does not fit.
    """
    bundle = find_bundle(encoder_source, embedded)
    if bundle is None:
        return ()
    read = bundle.entries(VISION_TRANSFORMERS.reads if taps is None else taps.__contains__)
    entries = [entry for entry in read if names is None or entry.name in names]
    if not entries:
        return ()
    fact = f"The generators of {encoder_source} cannot be loaded"
    with _quiet(), told_as_model_error(fact, "Install the package again, or name an undamaged bundle"):
        shared = _load_shared(bundle.folder) if any(entry.unet for entry in entries) else {}
        return tuple(_load(bundle, entry, shared, device) for entry in entries)


def _load_shared(folder: Path) -> dict[str, Any]:
    from transformers import CLIPTextModel, CLIPTokenizer

    check_tokenizer(folder / "tokenizer")
    return {
        "vae": _model(_autoencoder(folder / "vae"), folder / "vae"),
        "text_encoder": _model(CLIPTextModel, folder / "text_encoder"),
        "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        "scheduler": check_scheduler(folder / "scheduler").from_pretrained(folder / "scheduler"),
    }


def _autoencoder(folder: Path) -> Any:
    """The class that the folder's config names: `AutoencoderTiny`, or `AutoencoderKL` as in most pipelines."""
    import diffusers

    name = read_settings(folder / "config.json").get("_class_name")
    if name not in ("AutoencoderTiny", "AutoencoderKL"):
        raise ModelError(f"The vae in {folder} is not an autoencoder that ireu knows", "Name an AutoencoderKL or Tiny")
    return getattr(diffusers, name)


def _model(kind: Any, folder: Path) -> Any:
    """A part of the bundle in single precision."""
    return read_model(kind, folder).float()


def _load(bundle: Bundle, entry: GeneratorEntry, shared: dict[str, Any], device: str) -> Generator:
    if entry.pipeline is not None:
        folder, adapter = bundle.folder / entry.pipeline, bundle.folder / entry.adapter
        pipeline = open_pipeline(folder, adapter, DTYPES[entry.dtype], device)
        fingerprint = digest_of_files(folder, adapter)
    else:
        pipeline, fingerprint = _assembled(bundle, entry, str(entry.unet), shared, device)
    # What a picture depends on besides weights; settings that were added later count only if they are used.
    later = [setting for setting in (entry.side, entry.dtype) if setting not in {None, "float32"}]
    settings = repr((entry.tap, entry.steps, entry.guidance, entry.scale, *later))
    whole = hashlib.sha256(f"{fingerprint} {settings}".encode()).hexdigest()
    side = entry.side or mount_of(type(pipeline)).side(pipeline)
    return Generator(entry.name, entry.tap, whole, side, entry.steps, entry.guidance, entry.scale, pipeline)


def _assembled(bundle: Bundle, entry: GeneratorEntry, own: str, shared: dict[str, Any], device: str) -> tuple[Any, str]:
    """A pipeline of the bundle's shared parts, and the digest of everything that decides a picture, except settings."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    unet = _model(UNet2DConditionModel, bundle.folder / own)
    adapter = {name: tensor.float() for name, tensor in open_file(bundle.folder / entry.adapter).items()}
    fingerprint = _fingerprint(bundle, own, unet, adapter, shared)
    pipeline = StableDiffusionPipeline(
        **shared,
        unet=unet,
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    parts = {
        part: {name.removeprefix(f"{part}."): t for name, t in adapter.items() if name.startswith(f"{part}.")}
        for part in ("image_proj", "ip_adapter")
    }
    mount_of(type(pipeline)).mount(pipeline, parts)
    pipeline.set_progress_bar_config(disable=True)
    pipeline = pipeline.to(torch.device(device))
    unet.requires_grad_(False)
    return pipeline, fingerprint


def _fingerprint(bundle: Bundle, own: str, unet: Any, adapter: Any, shared: dict[str, Any]) -> str:
    states = {"unet": unet.state_dict(), "adapter": adapter}
    states |= {name: shared[name].state_dict() for name in ("vae", "text_encoder")}
    tensors = {f"{part}.{name}": tensor for part, state in states.items() for name, tensor in state.items()}
    digest = hashlib.sha256(fingerprint_of(tensors).encode())
    for part in (own, "vae", "text_encoder", "scheduler"):
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        settings = read_settings(bundle.folder / part / name)
        decisive = {key: value for key, value in settings.items() if key not in _INDECISIVE}
        digest.update(json.dumps(decisive, sort_keys=True).encode())
    for path in sorted((bundle.folder / "tokenizer").iterdir()):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' advice about loading off the terminal."""
    from diffusers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with quiet_transformers(), warnings.catch_warnings():
            # Advice about scheduler settings; these are the bundle's own, so the user cannot follow it.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
