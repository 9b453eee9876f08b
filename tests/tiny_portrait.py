"""A bundle like portrait-mini with random weights, small enough for a test; proves plumbing, not identity."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ireu_cli.judges.face_check import FaceCheckNet
from ireu_cli.judges.face_net import FaceNet
from ireu_cli.params import ARCFACE_LANDMARKS
from tests.conftest import tiny_model
from tests.tiny_generator import WIDTH, adapter_weights

LANDMARKS = tuple(round(0.5 + 0.9 * (value - 0.5), 4) for value in ARCFACE_LANDMARKS)
"""Where the bundle says that eyes, nose and mouth lie; not ArcFace's, so that a mix-up shows."""
_SIDE = 32
_FACE_WIDTHS = {"widths": [4, 8], "blocks": [1, 1], "tail": 4, "embedding": 16}


def write_tiny_portrait(folder: Path) -> Path:
    """Write the bundle: generators A (image_embeds) and B (penultimate) and C (normed_embedding of a network)."""
    tiny_model().half().save_pretrained(folder / "image_encoder")
    _write_text(folder)
    torch.manual_seed(2)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(4, 4), decoder_block_out_channels=(4, 4), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1), latent_channels=4, upsampling_scaling_factor=2, scaling_factor=1.0,
    )  # fmt: skip
    with torch.no_grad():
        # Otherwise its pictures are all but black, and equal whatever is drawn.
        vae.decoder.layers[-1].bias.fill_(0.5)
        vae.decoder.layers[-1].weight.mul_(4)
    vae.half().save_pretrained(folder / "vae")
    DDIMScheduler(clip_sample=False, prediction_type="v_prediction", steps_offset=1).save_pretrained(
        folder / "scheduler"
    )
    for number, (name, kind) in enumerate((("a", "base"), ("b", "plus"), ("c", "faceid"))):
        _write_generator(folder / name, kind, number)
    _write_judges(folder)
    write_face_encoder(folder / "face_encoder.onnx", 5)
    index = {
        "schema_version": 1,
        "image_encoder": "image_encoder",
        "recogniser": "recogniser",
        "face_encoder": "face_encoder.onnx",
        "face_check": "face_check",
        "landmarks": LANDMARKS,
        "prompt": "a face",
        "edits": {},
        "generators": [
            {"name": "A", "tap": "image_embeds", "steps": 3, "guidance": 4.0, "scale": 1.0} | _files("a"),
            {"name": "B", "tap": "penultimate", "steps": 2, "guidance": 2.0, "scale": 0.8} | _files("b"),
            {"name": "C", "tap": "normed_embedding", "steps": 2, "guidance": 2.0, "scale": 1.0} | _files("c"),
        ],
    }
    (folder / "portrait.json").write_text(json.dumps(index))
    return folder


def write_face_encoder(path: Path, seed: int) -> Path:
    """A random embedder of aligned faces, 112 px to 8 numbers, in ONNX."""
    rng = np.random.default_rng(seed)
    weights = {
        "kernel": rng.standard_normal((8, 3, 16, 16)).astype(np.float32) / 16,
        "matrix": rng.standard_normal((8 * 49, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["face", "kernel"], ["map"], strides=[16, 16]),
        helper.make_node("Flatten", ["map"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def _files(name: str) -> dict[str, Any]:
    return {"unet": f"{name}/unet", "adapter": f"{name}/ip_adapter.safetensors"}


def _write_text(folder: Path) -> None:
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=32)
    torch.manual_seed(3)
    text = CLIPTextModel(CLIPTextConfig(
        hidden_size=WIDTH, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1, vocab_size=len(words),
        max_position_embeddings=32, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip
    tokenizer.save_pretrained(folder / "tokenizer")
    text.half().save_pretrained(folder / "text_encoder")


def _write_generator(folder: Path, kind: str, seed: int) -> None:
    torch.manual_seed(10 + seed)
    unet = UNet2DConditionModel(
        block_out_channels=(4, 8), layers_per_block=1, sample_size=_SIDE // 2, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH, norm_num_groups=2,
    )  # fmt: skip
    weights = adapter_weights(unet, kind, hidden=16, projection=8 if kind == "faceid" else 12)
    unet.half().save_pretrained(folder / "unet")
    save_file({name: tensor.half() for name, tensor in weights.items()}, folder / "ip_adapter.safetensors")


def _write_judges(folder: Path) -> None:
    """A random recogniser, and a face check that finds the template's face in every picture."""
    torch.manual_seed(4)
    recogniser, check = FaceNet(**_FACE_WIDTHS), FaceCheckNet([2, 2, 2, 2, 2])  # type: ignore[arg-type]
    with torch.no_grad():
        last = check.head[-1]
        assert isinstance(last, torch.nn.Linear)
        last.weight.zero_()
        last.bias.copy_(torch.tensor([3.0, *ARCFACE_LANDMARKS]))
    settings: dict[str, tuple[Any, dict[str, Any]]] = {
        "recogniser": (recogniser, _FACE_WIDTHS | {"name": "tiny"}),
        "face_check": (check, {"widths": [2, 2, 2, 2, 2], "threshold": 0.5}),
    }
    for name, (net, config) in settings.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
        save_file(
            {key: tensor.contiguous() for key, tensor in net.state_dict().items()}, folder / name / "model.safetensors"
        )
