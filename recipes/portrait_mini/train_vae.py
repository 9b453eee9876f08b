"""Train the small autoencoder: ``train_vae.py --data DIR --out DIR``. Started again, it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from faces import Photos, data_folder, load_photos, split_validation
from runs import train, training_arguments
from torch.nn import functional

CHANNELS = 8
CROP = 80  # it is convolutional: parts of a photo teach it as well as whole photos, at a quarter of the work
NOISE = 0.2


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


class VaeRecipe:
    """Pixels back, edges back, latents of unit variance that bear a little noise."""

    def __init__(self, photos: Photos, held_out: Photos, batch: int, bf16: bool, seed: int) -> None:
        self.photos, self.held_out, self.batch, self.bf16, self.seed = photos, held_out, batch, bf16, seed
        self.allowed = split_validation(photos.person)[0]
        self.weights = {"pixels": 1.0, "squares": 2.0, "edges": 1.0, "latent_mean": 0.01, "latent_spread": 0.01}

    def losses(self, vae: AutoencoderTiny, step: int) -> dict[str, torch.Tensor]:
        """Crops at random places and at two sizes, half of them mirrored."""
        g = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        faces = self._crops(g).mul_(2).sub_(1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            latents = vae.encoder(faces).float()
            noisy = latents + NOISE * torch.rand(len(faces), 1, 1, 1, generator=g) * torch.randn(
                latents.shape, generator=g
            )
            back = vae.decoder(noisy).float()
        error = back - faces
        mean, spread = latents.mean((0, 2, 3)), latents.var((0, 2, 3)).clamp_min(1e-4)
        return {
            "pixels": error.abs().mean(),
            "squares": error.square().mean(),
            "edges": (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()),
            "latent_mean": mean.square().mean(),
            "latent_spread": (spread - 1 - spread.log()).mean(),
        }

    def _crops(self, g: torch.Generator) -> torch.Tensor:
        index = self.allowed[torch.randint(len(self.allowed), (self.batch,), generator=g)]
        # Most of the generator's pictures are reduced photos, finer than the photos themselves.
        scale = 0.7 + 0.3 * torch.rand(self.batch, generator=g)
        reach = CROP / (160 * scale)
        shift = (torch.rand(self.batch, 2, generator=g) * 2 - 1) * (1 - reach)[:, None].clamp_min(0)
        flip = torch.where(torch.rand(self.batch, generator=g) < 0.5, -1.0, 1.0)
        zero = torch.zeros_like(reach)
        place = torch.stack(
            [torch.stack([flip * reach, zero, shift[:, 0]], 1), torch.stack([zero, reach, shift[:, 1]], 1)], 1
        )
        grid = functional.affine_grid(place, [self.batch, 3, CROP, CROP], align_corners=False)
        pixels = self.photos.batch(index)
        tone = torch.rand(self.batch, 1, 1, 1, generator=g) * 0.8 + 0.4
        tone = torch.where(torch.rand(self.batch, 1, 1, 1, generator=g) < 0.3, tone, torch.ones(()))
        crops = functional.grid_sample(pixels, grid, mode="bicubic", padding_mode="border", align_corners=False)
        return crops.mul_(tone).clamp_(0, 1)

    @torch.no_grad()
    def measure(self, vae: AutoencoderTiny) -> dict[str, Any]:
        """PSNR on 256 photos of people who are never trained on, whole, at 112 pixels; mean and spread of latents."""
        index = torch.arange(0, len(self.held_out.person), len(self.held_out.person) // 256)[:256]
        errors, latents = [], []
        for part in torch.split(index, 32):
            faces = functional.interpolate(self.held_out.batch(part), (112, 112), mode="area").mul_(2).sub_(1)
            found = vae.encoder(faces)
            latents.append(found)
            errors.append((vae.decoder(found).clamp(-1, 1) - faces).square().mean((1, 2, 3)) / 4)
        z = torch.cat(latents)
        psnr = -10 * torch.cat(errors).log10().mean()
        figures = {"psnr": psnr, "latent_mean": z.mean(), "latent_std": z.std(), "latent_max": z.abs().max()}
        return {"eval": {name: round(float(value), 3) for name, value in figures.items()}}

    def export(self, vae: AutoencoderTiny, folder: Path) -> None:
        """``vae/`` in diffusers' layout."""
        vae.save_pretrained(folder / "vae")


def main() -> None:
    """The command."""
    parser = training_arguments(__doc__, "vae", 2e-3)
    parser.set_defaults(batch=16, measure_every=500)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--start", type=Path, help="checkpoint of another autoencoder: take over all layers that fit")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    data, cache = data_folder(args.data), args.out / "cache"
    photos, held_out = load_photos(data, "train", cache), load_photos(data, "eval", cache)
    vae = build_vae(args.width)
    if args.start is not None:
        wanted, held = vae.state_dict(), torch.load(args.start, weights_only=True)["average"]
        vae.load_state_dict({k: x for k, x in held.items() if x.shape == wanted[k].shape}, strict=False)
    vae.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=args.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    recipe = VaeRecipe(photos, held_out, args.batch, args.precision == "bf16", args.seed)
    train(args, {"data_sha256": {"train": photos.digest, "eval": held_out.digest}}, vae, [optimiser], recipe)


if __name__ == "__main__":
    main()
