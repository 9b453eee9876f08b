"""The kinds of what is read from somebody else: a seed, how it is changed, who reads it, what may not be accepted."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ireu_cli import manifest as records
from ireu_cli.support.record_text import text_of
from tests.fuzzing import mutate, mutate_media, readers

Wrong = Callable[[Any, Any], str | None]
"""From what the original means and what an accepted, changed one means, to what is wrong with that."""


@dataclass(frozen=True)
class Kind:
    """One kind. `files` is a pattern below the folder `seed`; `read` is given the folder, or the file if `by_file`.

    `share` says how many inputs it gets beside others, `writes` that its reader may change what lies beside the file.
    """

    seed: str
    files: str
    change: mutate.Mutate
    read: Callable[[Path], Any]
    wrong: Wrong = lambda _before, _after: None
    by_file: bool = False
    share: float = 1.0
    writes: bool = False


def _any(_before: Any, _after: Any) -> str | None:
    return "bytes that are not the recorded ones are accepted"


def _other(before: Any, after: Any) -> str | None:
    return None if before == after else "a record that says something else is accepted as sealed"


def _kept(before: Any, after: Any) -> str | None:
    return None if after in {None, before} else "features that were not kept are returned"


def _alike(before: Any, after: Any) -> str | None:
    """One name is one encoder."""
    if before[0] != after[0]:
        return None
    return None if before[1:] == after[1:] else "another encoder has the name of the original"


def _alike_network(before: Any, after: Any) -> str | None:
    return None if after[0] is None or before[0] is None else _alike(before[0], after[0])


def _failing(_before: Any, after: Any) -> str | None:
    return None if after[0] == "fail" else "a report that nobody sealed does not say that the edit failed"


def _moved(_before: Any, after: Any) -> str | None:
    return None if after[1] else "embeddings that were put back are not where they were"


def resealed_of(data: bytes, draw: random.Random) -> bytes:
    """A manifest that says something else, whose digest and checksum were worked out anew, as anybody can."""
    told = mutate.tree_of(json.loads(data), draw)
    try:
        told |= records._seals(told)
        return text_of(told).encode()
    except (ValueError, TypeError, RecursionError):
        return mutate.text_of(told, 2)


def variables_of(data: bytes, draw: random.Random) -> bytes:
    """Other variables; the file around them is ours, and stays JSON."""
    return json.dumps(mutate.tree_of(json.loads(data), draw)).encode()


def report_of(data: bytes, draw: random.Random) -> bytes:
    """A report with another outcome, or another one."""
    if draw.random() < 0.3:
        return data.replace(b'"outcome":"pass"', b'"outcome":"fail"', 1)
    return mutate.json_of(data, draw)


def _records() -> dict[str, Kind]:
    found: dict[str, Kind] = {}
    for name, file in (
        ("mask", "mask.pt.json"),
        ("delta", "delta.safetensors.json"),
        ("export", "export/ireu.json"),
        ("report", "report/manifest.json"),
    ):
        found[f"record of a {name}"] = Kind("artifacts", file, mutate.json_of, readers.record, _other, by_file=True)
        found[f"record of a {name}, resealed"] = Kind(
            "artifacts", file, resealed_of, readers.record, _other, by_file=True
        )
    found["record, inspected"] = Kind("artifacts", "*.json", resealed_of, readers.inspected, by_file=True)
    return found


def _artifacts() -> dict[str, Kind]:
    change = mutate.safetensors_of
    return {
        "mask": Kind("artifacts", "mask.pt", mutate.archive_of, readers.mask, by_file=True),
        "mask, recorded": Kind("artifacts", "mask.pt", mutate.archive_of, readers.recorded, _any, by_file=True),
        "delta": Kind("artifacts", "plain.safetensors", change, readers.delta, by_file=True),
        "delta, recorded": Kind("artifacts", "*.safetensors", change, readers.recorded, _any, by_file=True),
        "delta with a ledger": Kind("artifacts", "delta.safetensors", change, readers.delta, by_file=True),
        "delta of gates": Kind("artifacts", "gates.safetensors", change, readers.delta, by_file=True),
        "report": Kind("artifacts", "report/report.json", mutate.json_of, readers.report, _any),
        "report, rewritten": Kind("artifacts", "report/report.json", report_of, readers.rewritten, _failing,
                                  writes=True),
        "places of inputs": Kind("artifacts", ".ireu/locations/*.json", mutate.json_of, readers.locations,
                                 by_file=True, share=0.5),
        "cached features": Kind("artifacts", ".ireu/features/*.safetensors", change, readers.cached, _kept,
                                by_file=True, share=0.5, writes=True),
    }  # fmt: skip


def _encoders() -> dict[str, Kind]:
    weights, plain = mutate.safetensors_of, mutate.json_of
    return {
        "weights": Kind("tiny", "model.safetensors", weights, readers.encoder, _alike),
        "weights, inspected": Kind("tiny", "model.safetensors", weights, readers.card),
        "archive": Kind("archive", "pytorch_model.bin", mutate.archive_of, readers.encoder, _alike),
        "archive of old": Kind("old", "pytorch_model.bin", mutate.bytes_of, readers.encoder, _alike),
        "config": Kind("tiny", "config.json", plain, readers.encoder, _alike),
        "config, inspected": Kind("tiny", "config.json", plain, readers.card),
        "preprocessing": Kind("tiny", "preprocessor_config.json", plain, readers.encoder, _alike),
        "index of shards": Kind("shards", "model.safetensors.index.json", plain, readers.encoder, _alike),
        "shard": Kind("shards", "*.safetensors", weights, readers.encoder, _alike),
        "no projection": Kind("bare", "model.safetensors", weights, readers.tower, _alike),
        "no projection, config": Kind("bare", "config.json", plain, readers.tower, _alike),
        "DINOv2": Kind("dinov2", "model.safetensors", weights, readers.dinov2, _alike, share=0.5),
        "DINOv2, config": Kind("dinov2", "config.json", plain, readers.dinov2, _alike, share=0.5),
        "DINOv2, preprocessing": Kind("dinov2", "preprocessor_config.json", plain, readers.dinov2, _alike, share=0.5),
        "Wan's file": Kind("wan", "wan.pth", mutate.archive_of, readers.encoder, _alike, by_file=True),
        "Wan's file, inspected": Kind("wan-safe", "wan.safetensors", weights, readers.card, by_file=True),
        "EVA's file": Kind("eva", "eva.pt", mutate.archive_of, readers.eva, _alike, by_file=True),
        "EVA's file, inspected": Kind("eva-safe", "eva.safetensors", weights, readers.card, by_file=True),
    }


def _networks() -> dict[str, Kind]:
    net = mutate_media.onnx_of
    return {
        "network": Kind("network", "w.onnx", net, readers.network, _alike_network, by_file=True),
        "network, weights beside it": Kind("beside", "w.onnx", net, readers.network, _alike_network, by_file=True),
        "gate": Kind("gate", "g.onnx", net, readers.gate, by_file=True, share=0.3),
        "pack": Kind("pack", "models/tiny/*", _of_pack, readers.pack),
        "pack, opened by insightface": Kind("unnamed", "models/tiny/rec.onnx", net, readers.opened_pack, share=0.3),
        "detector, opened by insightface": Kind("unnamed", "models/tiny/det.onnx", net, readers.opened_pack, share=0.3),
    }


def _of_pack(data: bytes, draw: random.Random) -> bytes:
    return (mutate.json_of if data.startswith(b"{") else mutate_media.onnx_of)(data, draw)


def _others() -> dict[str, Kind]:
    return {
        "archive of facexlib": Kind("ir_se", "new.pth", mutate.archive_of, readers.ir_se, _alike, by_file=True,
                                    share=0.5),
        "archive of facexlib, old": Kind("ir_se_old", "old.pth", mutate.bytes_of, readers.ir_se, _alike, by_file=True,
                                         share=0.5),
        "embeddings of numpy": Kind("embeddings", "*.npy", mutate.bytes_of, readers.embeddings, _moved, by_file=True),
        "face model": Kind("embeddings", "*.safetensors", mutate.safetensors_of, readers.embeddings, _moved,
                           by_file=True),
    }  # fmt: skip


def _bundles() -> dict[str, Kind]:
    plain, weights = mutate.json_of, mutate.safetensors_of
    return {
        "index of a bundle": Kind("bundle", "portrait.json", plain, readers.bundle),
        "bundle, drawn": Kind("bundle", "portrait.json", plain, readers.drawn, share=0.4),
        "recogniser": Kind("bundle", "recogniser/config.json", plain, readers.recogniser),
        "weights of a recogniser": Kind("bundle", "recogniser/*.safetensors", weights, readers.recogniser),
        "face check": Kind("bundle", "face_check/*.json", plain, readers.face_check),
        "unet": Kind("bundle", "a/unet/config.json", plain, readers.drawn, share=0.4),
        "text encoder": Kind("bundle", "text_encoder/config.json", plain, readers.drawn, share=0.4),
        "vae": Kind("bundle", "vae/config.json", plain, readers.drawn, share=0.4),
        "scheduler": Kind("bundle", "scheduler/*.json", plain, readers.drawn, share=0.4),
        "tokenizer": Kind("bundle", "tokenizer/*.json", plain, readers.drawn, share=0.4),
        "adapter": Kind("bundle", "a/ip_adapter.safetensors", weights, readers.drawn, share=0.4),
    }


def _people() -> dict[str, Kind]:
    lines = mutate.lines_of
    return {
        "photo": Kind("photos", "*.jpg", mutate_media.photo_of, readers.photo, by_file=True, share=6),
        "settings": Kind("texts", "ireu.toml", lines, readers.settings, by_file=True, share=2),
        "variables": Kind("texts", "variables.json", variables_of, readers.variables, by_file=True),
        "labels": Kind("texts", "labels.csv", lines, readers.labels, by_file=True),
        "requests of a batch": Kind("texts", "cases.csv", lines, readers.batch, by_file=True),
        "list of deployments": Kind("texts", "deployments/*.json", mutate.json_of, readers.deployments, by_file=True),
    }


KINDS = {**_people(), **_records(), **_artifacts(), **_encoders(), **_networks(), **_others(), **_bundles()}
