"""SGLang-Diffusion's routes for weights, on one module of a pipeline.

After `multimodal_gen/runtime/entrypoints/post_training/weights_api.py`, `loader/weights_updater.py` and
`utils/update_weight_from_tensor_checker.py` of sgl-project/sglang: what they answer, not how they are written.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import CLIPVisionModelWithProjection

from tests.services.http import KilledError, Reply

MODULE = "image_encoder"


class Sglang:
    """A pipeline that holds one encoder; it is a server's memory, which a killed server has lost."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.start(folder)
        self.loads: list[str] = []
        self.kill_before = self.kill_after = self.lies = False

    def start(self, folder: Path) -> None:
        """Start with the weights of a folder, as after a crash."""
        self.path, self.is_dead = folder, False
        self.model = CLIPVisionModelWithProjection.from_pretrained(folder).to(self.dtype)

    def _killed(self) -> KilledError:
        self.is_dead = True
        return KilledError()

    def __call__(self, method: str, path: str, body: Any) -> Reply:
        if self.is_dead:
            raise KilledError
        if method != "POST" or path not in {
            "get_weights_checksum", "update_weights_from_disk", "update_weights_from_tensor_checker",
        }:  # fmt: skip
            return 404, {"detail": "Not Found"}
        return getattr(self, f"_{path}")(body)  # type: ignore[no-any-return]

    def _get_weights_checksum(self, body: Any) -> Reply:
        names = body.get("module_names") or [MODULE]
        return 200, {name: self._checksum() if name == MODULE else "not_found" for name in names}

    def _checksum(self) -> str:
        found = hashlib.sha256()
        for name, tensor in sorted(self.model.named_parameters(), key=lambda pair: pair[0]):
            found.update(name.encode())
            found.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
        return found.hexdigest()

    def _update_weights_from_tensor_checker(self, body: Any) -> Reply:
        live = dict(self.model.named_parameters())
        for name, expected in body["expected_named_tensors_sha256"].items():
            tensor = live[name].detach()
            text = str(tensor.dtype).encode() + repr(tuple(tensor.shape)).encode()
            if hashlib.sha256(text + tensor.view(torch.uint8).numpy().tobytes()).hexdigest() != expected:
                return 400, {"success": False, "message": f"{name} differs"}
        return 200, {"success": True, "message": "Verified"}

    def _update_weights_from_disk(self, body: Any) -> Reply:
        if self.kill_before:
            raise self._killed()
        self.loads.append(body["model_path"])
        if body.get("target_modules") != [MODULE]:
            return 400, {"success": False, "message": "Module(s) requested for update not found in pipeline"}
        place = Path(body["model_path"])
        place = place / MODULE if (place / MODULE).is_dir() else place
        files = sorted(place.glob("*.safetensors"))
        if not files:
            return 400, {"success": False, "message": "Cannot update weights: missing weight files. \x1b[2J"}
        if not self.lies:
            try:
                self._copy({name: tensor for file in files for name, tensor in load_file(file).items()})
            except ValueError as error:
                # Only modules that were loaded as a whole are rolled back, so that a single one stays a mixture.
                return 400, {"success": False, "message": f"{error}. All modules rolled back to original weights."}
            self.path = place
        if self.kill_after:
            raise self._killed()
        return 200, {"success": True, "message": "Updated 1 modules"}

    def _copy(self, tensors: dict[str, torch.Tensor]) -> None:
        # Names that the model has not are skipped, as there.
        for name, tensor in self.model.named_parameters():
            if name in tensors:
                if tensors[name].shape != tensor.shape:
                    raise ValueError(f"Shape mismatch for {name}")
                tensor.data.copy_(tensors[name])
