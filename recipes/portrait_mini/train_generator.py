"""Train a generator: ``train_generator.py --data DIR --out DIR --name a --kind base``. Started again, it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from conditions import Conditions, encoder_conditions, face_conditions
from diffusers import AutoencoderTiny
from faces import Photos, data_folder, load_photos, split_validation
from generator import Generator, build_scheduler, plain_unet, sample, save_adapter, start_weights
from graph import Graph
from likeness import Likeness
from muon import optimisers
from PIL import Image
from runs import few_each, train, training_arguments
from scenes import FRAMES, PICTURE, VIEWS, SceneBank, open_scenes
from teacher import Teacher, teach_plain
from torch.nn import functional
from train_text import LENGTH
from train_vae import CHANNELS
from transformers import CLIPTextModel, CLIPTokenizer
from views import ALIGNED, aligned_frame, centre_frame, plain

STEPS, GUIDANCE, SHOWN = 12, 2.0, 48
# Guidance compares with a picture of nobody and no words, which is the pair that has to be learnt best.
NEITHER, NO_FACE, NO_TEXT = 0.08, 0.05, 0.05
ASKED = 8  # one in so many pictures of a batch is asked about likeness: the decoder and the teacher cost time
# Who it is gets decided where there is much noise; these levels are drawn more often (Esser et al. 2024, the shift).
SHIFT = 2.0


class Words:
    """Captions to the frozen text encoder's output."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> torch.Tensor:
        """-> (n, 32, 128)."""
        ids = self.tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
        found: torch.Tensor = self.encoder(ids.input_ids)[0]
        return found


class GeneratorRecipe:
    """v-prediction (Salimans and Ho 2022), and likeness on part of a batch, where noise hides who it is."""

    def __init__(
        self,
        args: Any,
        bank: SceneBank,
        words: Words,
        seen: Conditions,
        judge: Judge,
        likeness: Likeness | None,
    ) -> None:
        self.args, self.bank, self.words, self.judge, self.likeness = args, bank, words, judge, likeness
        self.seen = seen
        validation = split_validation(judge.photos.person)[1]
        self.shown = few_each(judge.photos.person, validation, 1)[:SHOWN]
        self.weights = {"v": 1.0} | ({} if likeness is None else {"likeness": args.likeness})
        self.alphas = build_scheduler().alphas_cumprod
        self.bf16 = args.precision == "bf16"

    def losses(self, generator: Generator, step: int) -> dict[str, torch.Tensor]:
        """One batch of scenes at random noise levels."""
        size = self.args.batch
        g = torch.Generator().manual_seed(self.args.seed * 7_000_003 + step)
        scenes, latents = self.bank.batch(step, size)
        features = self.seen.batch([s.shown * VIEWS + s.view for s in scenes])
        lot = torch.rand(size, generator=g)
        no_face = lot < NEITHER + NO_FACE
        no_text = (lot < NEITHER) | (lot > 1 - NO_TEXT)
        features[no_face] = self.seen.null
        text = self.words(["" if off else s.caption for s, off in zip(scenes, no_text.tolist(), strict=True)])
        share = (torch.arange(size) + torch.rand(size, generator=g)).div(size)
        t = (SHIFT * share / (1 + (SHIFT - 1) * share)).mul(1000).long().clamp_(max=999)
        t = t[torch.randperm(size, generator=g)]
        alpha = self.alphas[t][:, None, None, None]
        noise = torch.randn(latents.shape, generator=g)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            v = generator(noisy, t, text, features)
        error = ((v.float() - target).square() * self.bank.scenes.weights(scenes)).mean((1, 2, 3))
        # Little noise leaves only fine texture to learn, of which there is no end: it counts less.
        snr = self.alphas[t] / (1 - self.alphas[t]).clamp_min(1e-6)
        losses = {"v": (error * (6 / (snr + 1)).clamp(max=1)).mean()}
        if self.likeness is not None and step >= self.args.likeness_from:
            rows = (self.likeness.usable(scenes, t) & ~no_face).nonzero().flatten()[: max(1, size // ASKED)]
            estimate = (alpha.sqrt() * noisy - (1 - alpha).sqrt() * v.float())[rows]
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                losses["likeness"] = self.likeness([scenes[i] for i in rows.tolist()], estimate)
        return losses

    @torch.no_grad()
    def measure(self, generator: Generator) -> dict[str, Any]:
        """Similarity of portraits to their photos, people who are never trained on, beside other people's photos."""
        noise = torch.randn(SHOWN, CHANNELS, 14, 14, generator=torch.Generator().manual_seed(5))
        text = self.words(["a photo of a face"] * SHOWN)
        features = self.seen.batch((self.shown * VIEWS).tolist())
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            null = self.words([""])
            latents = sample(generator, text, features, null, self.seen.null, noise, STEPS, GUIDANCE)
            pictures = self.bank.vae.decoder(latents.float()).float().clamp(-1, 1)
        return self.judge(self.shown, pictures)

    def export(self, generator: Generator, folder: Path) -> None:
        """``unet/``, ``ip_adapter.safetensors`` and the last grid."""
        plain_unet(generator, tuple(self.args.widths)).half().save_pretrained(folder / "unet")
        save_adapter(generator, str(folder / "ip_adapter.safetensors"))
        Image.fromarray(self.judge.grid).save(folder / "grid.png")


class Judge:
    """A recogniser that taught nobody, on pictures in the plain frame."""

    def __init__(self, data: Path, photos: Photos) -> None:
        self.photos = photos
        self.session = onnxruntime.InferenceSession(
            str(data / "models" / "recogniser_b.onnx"), providers=["CPUExecutionProvider"]
        )
        to_photo = torch.cat([centre_frame(FRAMES["plain"]), torch.tensor([[0.0, 0.0, 1.0]])])
        aligned = torch.cat([aligned_frame(), torch.tensor([[0.0, 0.0, 1.0]])])
        self.frame = (torch.linalg.inv(to_photo) @ aligned)[:2]
        self.grid = np.zeros((1, 1, 3), np.uint8)

    def embed(self, faces: torch.Tensor) -> torch.Tensor:
        """Aligned faces (n, 3, 112, 112) in [0, 1] -> unit vectors."""
        name = self.session.get_inputs()[0].name
        pixels = ((faces.clamp(0, 1) * 255 - 127.5) / 128).float().numpy()
        return functional.normalize(torch.from_numpy(self.session.run(None, {name: pixels})[0]).flatten(1), dim=1)

    def __call__(self, index: torch.Tensor, pictures: torch.Tensor) -> dict[str, Any]:
        """Photos (n,) and the portraits drawn from them (n, 3, 112, 112) in [-1, 1] -> figures; keeps a grid."""
        drawn = pictures.add(1).div(2)
        where = functional.affine_grid(
            self.frame.expand(len(drawn), 2, 3), [len(drawn), 3, ALIGNED, ALIGNED], align_corners=False
        )
        found = self.embed(functional.grid_sample(drawn, where, padding_mode="border", align_corners=False))
        real = self.embed(plain(self.photos, index, aligned_frame(), ALIGNED))
        similarity = found @ real.T
        person = self.photos.person[index]
        other = similarity[person[:, None] != person[None]]
        photos = plain(self.photos, index, centre_frame(FRAMES["plain"]), PICTURE)
        rows = torch.stack([photos, drawn], 1)[:24].reshape(4, 6, 2, 3, PICTURE, PICTURE)
        tiles = rows.permute(0, 4, 1, 2, 5, 3).reshape(4 * PICTURE, 12 * PICTURE, 3)
        self.grid = (tiles * 255).byte().numpy()
        error = (drawn - photos).square().mean((1, 2, 3))
        return {
            "similarity": round(float(similarity.diagonal().mean()), 4),
            "impostor": round(float(other.mean()), 4),
            "match_1e-2": round(float((similarity.diagonal() > other.quantile(0.99)).float().mean()), 4),
            "psnr": round(float(-10 * error.log10().mean()), 2),
        }


def main() -> None:
    """The command."""
    parser = training_arguments(__doc__, "a", 2e-3)
    parser.set_defaults(batch=32, warmup=200)
    parser.add_argument(
        "--kind",
        choices=["base", "plus", "faceid", "deep"],
        required=True,
        help="faceid trains an adapter on the UNet of --start; deep reads five depths and the pooled vector",
    )
    parser.add_argument("--widths", type=int, nargs=2, required=True)
    parser.add_argument("--encoder", type=Path, required=True, help="folder of the image encoder, or the face encoder")
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--likeness", type=float, default=0.0, help="weight of the likeness to the photo's person")
    parser.add_argument("--likeness-from", type=int, default=1500, help="step at which estimates are faces, about")
    parser.add_argument(
        "--start", type=Path, help="checkpoint, or folder in the bundle, of a generator: take over all weights that fit"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    data, cache = data_folder(args.data), args.out / "cache"
    photos = load_photos(data, "train", cache)
    vae = AutoencoderTiny.from_pretrained(args.vae).eval().requires_grad_(False)
    bank = open_scenes(data, cache, photos, vae)
    if args.kind == "faceid":
        seen = face_conditions(args.encoder, photos, cache / "seen_0")
    else:
        seen = encoder_conditions(args.encoder, args.kind, photos, cache / "seen_0")
    generator = Generator(args.kind, tuple(args.widths), seen.null.shape[-1])
    if args.start is not None:
        wanted = generator.state_dict()
        fitting = {k: x for k, x in start_weights(args.start).items() if k in wanted and x.shape == wanted[k].shape}
        generator.load_state_dict(fitting, strict=False)
    if args.kind == "faceid":
        generator.keep_unet()
    likeness = None
    if args.likeness:
        teacher = Teacher(data / "models", args.threads)
        truth = teach_plain(teacher, photos, torch.arange(len(photos.person)), cache / "taught_train.npy")
        likeness = Likeness(Graph(data / "models" / "recogniser_e.onnx"), truth, vae)
    recipe = GeneratorRecipe(args, bank, Words(args.out / "text"), seen, Judge(data, photos), likeness)
    facts = {"data_sha256": {"train": photos.digest}}
    train(args, facts, generator, optimisers(generator, args.rate, 0.02), recipe)


if __name__ == "__main__":
    main()
