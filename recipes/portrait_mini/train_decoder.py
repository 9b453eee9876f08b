"""Sharpen the autoencoder's decoder: ``train_decoder.py --data DIR --out DIR --start VAE``. Started again, it goes on.

The encoder, and with it every latent that a generator has learnt from, stays as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from faces import Photos, data_folder, load_photos
from runs import train, training_arguments
from scenes import LATENT, SceneBank, open_scenes
from torch import nn
from torch.func import functional_call
from torch.nn import functional
from train_vae import CHANNELS, FACTOR, NOISE, green_wall, shown_faces

PATCH = 10  # latents; parts of a picture teach as well as whole ones
# The critic may not change its mind over a little noise (an estimate of the penalty R1).
NUDGE, SLOPE = 0.05, 2.0
SHARE = 0.3  # of the critic's pull on the last layer, beside the pull of the pixels


class Critic(nn.Module):
    """Tells patches of photos from decoded ones (Isola et al. 2017), knowing the latents that both stand for.

    Without normalisation: with bounded slopes (spectral norm) it gave up within 200 steps and said zero to everything.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [(3, width), (width, 2 * width), (2 * width, 4 * width)]
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 4, 2, 1) for i, o in sizes)
        self.content = nn.Conv2d(CHANNELS, 4 * width, 1)
        self.together = nn.Conv2d(4 * width, 4 * width, 3, 1, 1)
        self.last = nn.Conv2d(4 * width, 1, 1)
        for layer in [*self.layers, self.content, self.together]:
            nn.init.kaiming_normal_(layer.weight, 0.2)

    def forward(self, pictures: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Pictures (n, 3, 8 h, 8 w), latents (n, 8, h, w) -> scores (n, 1, h, w), high for photos."""
        for layer in self.layers:
            pictures = functional.leaky_relu(layer(pictures), 0.2)
        joined = functional.leaky_relu(self.together(pictures * (1 + 0.1 * self.content(latents))), 0.2)
        scores: torch.Tensor = self.last(joined)
        return scores


class Pair(nn.Module):
    """The decoder and its critic, trained side by side."""

    def __init__(self, vae: AutoencoderTiny, width: int) -> None:
        super().__init__()
        self.decoder, self.critic = vae.decoder, Critic(width)


class DecoderRecipe:
    """Pixels and edges back, and a critic that does not take blur for a photo."""

    def __init__(self, args: Any, bank: SceneBank, vae: AutoencoderTiny, photos: Photos) -> None:
        self.batch, self.seed, self.bf16 = args.batch, args.seed, args.precision == "bf16"
        self.bank, self.vae, self.photos, self.critic_from = bank, vae, photos, args.critic_from
        self.weights = {"pixels": 1.0, "squares": 1.0, "edges": 0.25, "pull": 1.0, "critic": 1.0, "slope": SLOPE}

    def losses(self, pair: Pair, step: int) -> dict[str, torch.Tensor]:
        """One batch of patches of scenes."""
        g = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        latents, pictures = self._patches(step, g)
        noise = NOISE * torch.rand(len(latents), 1, 1, 1, generator=g) * torch.randn(latents.shape, generator=g)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            back = pair.decoder(latents + noise).float()
        error = back - pictures
        losses = {
            "pixels": error.abs().mean(),
            "squares": error.square().mean(),
            "edges": error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean(),
        }
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            found = pair.critic(pictures, latents)
            doubt = pair.critic(back.detach(), latents)
            # The decoder asks the critic without teaching it.
            fixed = {name: p.detach() for name, p in pair.critic.named_parameters()}
            score = functional_call(pair.critic, fixed, (back, latents))
        nudged = pair.critic(pictures + NUDGE * torch.randn(pictures.shape, generator=g), latents)
        plain = pair.critic(pictures, latents)
        losses["critic"] = functional.softplus(-found.float()).mean() + functional.softplus(doubt.float()).mean()
        losses["slope"] = (nudged - plain).square().mean()
        if step >= self.critic_from:
            pull = functional.softplus(-score.float()).mean()
            losses["pull"] = pull * self._balance(pair, losses, pull)
        return losses

    def _balance(self, pair: Pair, losses: dict[str, torch.Tensor], pull: torch.Tensor) -> torch.Tensor:
        """Weight that makes the critic's pull a fixed share of the pixels' (Esser et al. 2021)."""
        last = [p for p in pair.decoder.parameters() if p.ndim == 4][-1]
        plain = sum(self.weights[name] * losses[name] for name in ("pixels", "squares", "edges"))
        (pixels,) = torch.autograd.grad(plain, last, retain_graph=True)  # type: ignore[arg-type]
        (critic,) = torch.autograd.grad(pull, last, retain_graph=True)
        return (SHARE * pixels.norm() / critic.norm().clamp_min(1e-6)).clamp(max=10.0)

    def _patches(self, step: int, g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """-> latents (n, 8, p, p) and their pictures (n, 3, 8 p, 8 p) in [-1, 1]."""
        scenes, latents = self.bank.batch(step, self.batch)
        pictures = self.bank.scenes.picture(scenes).mul_(2).sub_(1)
        y, x = torch.randint(0, LATENT - PATCH + 1, (2,), generator=g).tolist()
        return latents[..., y : y + PATCH, x : x + PATCH], pictures[
            ..., FACTOR * y : FACTOR * (y + PATCH), FACTOR * x : FACTOR * (x + PATCH)
        ]

    @torch.no_grad()
    def measure(self, pair: Pair) -> dict[str, Any]:
        """PSNR and detail on photos of people who are never trained on; a plain green wall's colour."""
        errors, detail = [], []
        for faces in shown_faces(self.photos):
            back = pair.decoder(self.vae.encoder(faces)).clamp(-1, 1)
            errors.append((back - faces).square().mean((1, 2, 3)) / 4)
            detail.append(_detail(back) / _detail(faces))
        return {
            "psnr": round(float(-10 * torch.cat(errors).log10().mean()), 3),
            "detail": round(float(torch.stack(detail).mean()), 3),
            "green": green_wall(self.vae.encoder, pair.decoder),
        }

    def export(self, pair: Pair, folder: Path) -> None:
        """``vae/`` in diffusers' layout."""
        self.vae.decoder.load_state_dict(pair.decoder.state_dict())
        self.vae.save_pretrained(folder / "vae")


def _detail(pictures: torch.Tensor) -> torch.Tensor:
    """Energy of what a 3 x 3 mean takes away."""
    return (pictures - functional.avg_pool2d(pictures, 3, 1, 1, count_include_pad=False)).square().mean()


def main() -> None:
    """The command."""
    parser = training_arguments(__doc__, "decoder", 1e-3)  # the critic's; it has more to learn
    parser.set_defaults(batch=32, measure_every=500, warmup=100)
    parser.add_argument("--start", type=Path, required=True, help="folder of the autoencoder")
    parser.add_argument("--critic-width", type=int, default=32)
    parser.add_argument("--critic-from", type=int, default=500, help="step at which the decoder listens to the critic")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    data, cache = data_folder(args.data), args.out / "cache"
    photos = load_photos(data, "train", cache)
    vae = AutoencoderTiny.from_pretrained(args.start).eval().requires_grad_(False)
    bank = open_scenes(data, cache, photos, vae)
    pair = Pair(AutoencoderTiny.from_pretrained(args.start).train(), args.critic_width)
    groups = [{"params": pair.decoder.parameters(), "times": 0.2}, {"params": pair.critic.parameters()}]
    optimiser = torch.optim.AdamW(groups, lr=args.rate, betas=(0.5, 0.99), weight_decay=0.0, fused=True)
    facts = {"data_sha256": {"train": photos.digest}}
    train(args, facts, pair, [optimiser], DecoderRecipe(args, bank, vae, photos))


if __name__ == "__main__":
    main()
