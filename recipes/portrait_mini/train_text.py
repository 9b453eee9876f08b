"""Make the tokenizer and train the text encoder: ``train_text.py --out DIR``. A minute or two; starts anew each time.

The text encoder learns to tell which edits a prompt asks for, whatever the wording and order; generators are then
trained on its frozen output.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from captions import NAMES, caption
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

LENGTH, WIDTH = 32, 128
BATCH, STEPS = 128, 1500


def draw_captions(count: int, g: torch.Generator) -> tuple[list[str], torch.Tensor]:
    """Captions and the edits they ask for, float (count, edits)."""
    asked = (torch.rand(count, len(NAMES), generator=g) < 0.15).float()
    texts = [caption([name for name, on in zip(NAMES, row.tolist(), strict=True) if on], g) for row in asked]
    return texts, asked


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """A byte-pair vocabulary learned from captions; any other text falls apart into letters, and is still read."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=800, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(draw_captions(4000, torch.Generator().manual_seed(1))[0], trainer)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    words = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    words += sorted({a + b for a, b in merges} - set(words))
    words += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {word: i for i, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False) + "\n")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Two blocks, 128 wide."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=256,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    folder = args.out / "text"
    tokenizer = build_tokenizer(folder / "tokenizer")
    encoder, g = build_text_encoder(tokenizer), torch.Generator().manual_seed(0)
    head = nn.Linear(WIDTH, len(NAMES))
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, STEPS)
    for step in range(STEPS + 1):
        texts, asked = draw_captions(BATCH, g)
        ids = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids
        logits = head(encoder(ids).pooler_output)
        if step == STEPS:
            right = ((logits > 0) == (asked > 0)).all(1).float().mean()
            (folder / "run.json").write_text(json.dumps({"steps": STEPS, "all_edits_read": round(float(right), 4)}))
            break
        functional.binary_cross_entropy_with_logits(logits, asked).backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    encoder.save_pretrained(folder / "text_encoder")


if __name__ == "__main__":
    main()
