"""Train the small autoencoder: ``train_vae.py --data DIR --out DIR``. Started again, it goes on.

``--keep FOLDER`` goes on from an autoencoder and holds its latents of photos, so that generators which draw them stay
usable: that is how colours which photos rarely show were taught later.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from faces import Photos, data_folder, load_photos, split_validation
from runs import few_each, train, training_arguments
from torch import nn
from torch.nn import functional

CHANNELS, FACTOR = 8, 8
CROP = 80  # it is convolutional: parts of a photo teach it as well as whole photos, at a quarter of the work
NOISE = 0.2
MISSING = 3.0  # latents a unit of colour
COLOURED = 0.3  # of the crops: photos are blue and orange, and hardly ever green


def build_vae(width: int) -> AutoencoderTiny:
    """Factor 8, 8 latent channels, of about unit variance without scaling."""
    return AutoencoderTiny(
        encoder_block_out_channels=(width,) * 4,
        decoder_block_out_channels=(width,) * 4,
        latent_channels=CHANNELS,
        num_encoder_blocks=(0, 1, 2, 3),
        num_decoder_blocks=(3, 2, 1, 0),
        latent_magnitude=3,
        scaling_factor=1.0,
    )


class Kept:
    """Latents of an earlier autoencoder, and, where colour comes back wrong, what is missing along spare directions.

    Left to itself the encoder does not begin: it ignores such colours because the decoder does, and the reverse.
    """

    @torch.no_grad()
    def __init__(self, vae: AutoencoderTiny, faces: torch.Tensor) -> None:
        """``faces`` (n, 3, h, w) in [-1, 1] show in which three directions latents vary least."""
        self.vae = vae
        latents = vae.encoder(faces)
        self.spare = torch.linalg.eigh(latents.transpose(0, 1).flatten(1).cov())[1][:, :3] * MISSING

    @torch.no_grad()
    def wanted(self, faces: torch.Tensor) -> torch.Tensor:
        """-> (n, 8, h / 8, w / 8)."""
        latents: torch.Tensor = self.vae.encoder(faces)
        missing = functional.avg_pool2d(faces - self.vae.decoder(latents).clamp(-1, 1), FACTOR)
        return latents + torch.einsum("zc,nchw->nzhw", self.spare, missing)


class VaeRecipe:
    """Pixels back, edges back, latents of unit variance that bear a little noise."""

    def __init__(self, args: Any, photos: Photos, kept: AutoencoderTiny | None) -> None:
        self.photos = photos
        self.batch, self.bf16, self.seed = args.batch, args.precision == "bf16", args.seed
        self.allowed = split_validation(photos.person)[0]
        self.weights = {"pixels": 1.0, "squares": 2.0, "edges": 1.0, "latent_mean": 0.01, "latent_spread": 0.01}
        self.kept = None
        if kept is not None:
            crops = self._crops(torch.Generator().manual_seed(self.seed), 64)
            self.kept = Kept(kept, crops.mul_(2).sub_(1))
            self.weights |= {"latent_mean": 0.0, "latent_spread": 0.0, "kept": 0.5}

    def losses(self, vae: AutoencoderTiny, step: int) -> dict[str, torch.Tensor]:
        """Crops at random places and at two sizes, half of them mirrored."""
        g = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        crops = self._crops(g, self.batch)
        painted = torch.rand(len(crops), generator=g) < COLOURED
        crops[painted] = coloured(crops[painted], g)
        faces = crops.mul_(2).sub_(1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            latents = vae.encoder(faces).float()
            noisy = latents + NOISE * torch.rand(len(faces), 1, 1, 1, generator=g) * torch.randn(
                latents.shape, generator=g
            )
            back = vae.decoder(noisy).float()
        error = back - faces
        mean, spread = latents.mean((0, 2, 3)), latents.var((0, 2, 3)).clamp_min(1e-4)
        losses = {
            "pixels": error.abs().mean(),
            "squares": error.square().mean(),
            "edges": (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()),
            "latent_mean": mean.square().mean(),
            "latent_spread": (spread - 1 - spread.log()).mean(),
        }
        if self.kept is not None:
            losses["kept"] = (latents - self.kept.wanted(faces)).square().mean()
        return losses

    def _crops(self, g: torch.Generator, count: int) -> torch.Tensor:
        index = self.allowed[torch.randint(len(self.allowed), (count,), generator=g)]
        # Most of the generator's pictures are reduced photos, finer than the photos themselves.
        scale = 0.7 + 0.3 * torch.rand(count, generator=g)
        reach = CROP / (160 * scale)
        shift = (torch.rand(count, 2, generator=g) * 2 - 1) * (1 - reach)[:, None].clamp_min(0)
        flip = torch.where(torch.rand(count, generator=g) < 0.5, -1.0, 1.0)
        zero = torch.zeros_like(reach)
        place = torch.stack(
            [torch.stack([flip * reach, zero, shift[:, 0]], 1), torch.stack([zero, reach, shift[:, 1]], 1)], 1
        )
        grid = functional.affine_grid(place, [count, 3, CROP, CROP], align_corners=False)
        pixels = self.photos.batch(index)
        tone = torch.rand(count, 1, 1, 1, generator=g) * 0.8 + 0.4
        tone = torch.where(torch.rand(count, 1, 1, 1, generator=g) < 0.3, tone, torch.ones(()))
        crops = functional.grid_sample(pixels, grid, mode="bicubic", padding_mode="border", align_corners=False)
        return crops.mul_(tone).clamp_(0, 1)

    @torch.no_grad()
    def measure(self, vae: AutoencoderTiny) -> dict[str, Any]:
        """PSNR on photos of people who are never trained on, whole, at 112 pixels; mean and spread of latents."""
        errors, latents = [], []
        for faces in shown_faces(self.photos):
            found = vae.encoder(faces)
            latents.append(found)
            errors.append((vae.decoder(found).clamp(-1, 1) - faces).square().mean((1, 2, 3)) / 4)
        z = torch.cat(latents)
        psnr = -10 * torch.cat(errors).log10().mean()
        figures = {"psnr": psnr, "latent_mean": z.mean(), "latent_std": z.std(), "latent_max": z.abs().max()}
        rounded = {name: round(float(value), 3) for name, value in figures.items()}
        return {"validation": rounded, "green": green_wall(vae.encoder, vae.decoder)}

    def export(self, vae: AutoencoderTiny, folder: Path) -> None:
        """``vae/`` in diffusers' layout."""
        vae.save_pretrained(folder / "vae")


def shown_faces(photos: Photos) -> Iterator[torch.Tensor]:
    """240 photos of the validation people, whole, in batches (n, 3, 112, 112) in [-1, 1]."""
    index = few_each(photos.person, split_validation(photos.person)[1], 4)
    for part in torch.split(index, 32):
        yield functional.interpolate(photos.batch(part), (112, 112), mode="area").mul_(2).sub_(1)


def green_wall(encoder: nn.Module, decoder: nn.Module) -> list[float]:
    """How a plain wall of (.13, .55, .21) comes back."""
    wall = torch.tensor([0.13, 0.55, 0.21])[None, :, None, None].expand(1, 3, 112, 112)
    green = decoder(encoder(wall * 2 - 1)).add(1).div(2).mean((0, 2, 3))
    return [round(x, 3) for x in green.tolist()]


def coloured(pictures: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Put pictures (n, 3, h, w) in [0, 1] behind or before a soft-edged patch of any colour, lit as the picture is."""
    n, _, h, w = pictures.shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    angle, shift, width = torch.rand(3, n, 1, 1, generator=g)
    along = x * (angle * 6.3).cos() + y * (angle * 6.3).sin() + 1.6 * shift - 0.8
    covered = torch.sigmoid(along / (0.03 + 0.3 * width))[:, None] * 0.95
    colour = torch.rand(n, 3, 1, 1, generator=g)
    light = 0.6 + 0.5 * pictures.mean(1, keepdim=True)
    return torch.lerp(pictures, (colour * light).clamp(0, 1), covered)


def main() -> None:
    """The command."""
    parser = training_arguments(__doc__, "vae", 2e-3)
    parser.set_defaults(batch=16, measure_every=500)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--start", type=Path, help="checkpoint of another autoencoder: take over all layers that fit")
    parser.add_argument("--keep", type=Path, help="folder of an autoencoder to go on from, whose latents stay valid")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    data, cache = data_folder(args.data), args.out / "cache"
    photos = load_photos(data, "train", cache)
    vae, kept = build_vae(args.width), None
    if args.keep is not None:
        kept = AutoencoderTiny.from_pretrained(args.keep).eval().requires_grad_(False)
        vae.load_state_dict(kept.state_dict())
    if args.start is not None:
        wanted, held = vae.state_dict(), torch.load(args.start, weights_only=True)["average"]
        vae.load_state_dict({k: x for k, x in held.items() if x.shape == wanted[k].shape}, strict=False)
    vae.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=args.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    recipe = VaeRecipe(args, photos, kept)
    train(args, {"data_sha256": {"train": photos.digest}}, vae, [optimiser], recipe)


if __name__ == "__main__":
    main()
