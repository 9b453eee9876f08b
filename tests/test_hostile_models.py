"""Models, bundles and settings that mean harm: each is refused in a sentence, soon, and nothing of it is run."""

import json
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ireu_cli.encoders.clip import load_encoder
from ireu_cli.encoders.families import card_of
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.encoders.files.tensor_file import open_file
from ireu_cli.errors import ModelError
from ireu_cli.generators.generator import load_generators
from ireu_cli.generators.pipelines import open_pipeline
from ireu_cli.judges.face_check import load_face_check
from ireu_cli.judges.recogniser import load_recogniser
from ireu_cli.params import EncoderParams

FIRST = "vision_model.encoder.layers.0.mlp.fc1"


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def bundle(portrait: Path, tmp_path: Path) -> Path:
    shutil.copytree(portrait, tmp_path / "bundle")
    (tmp_path / "secret").mkdir()
    return tmp_path / "bundle"


@pytest.fixture
def quick() -> Any:
    """What is refused is refused before any work that a number asked for."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 20


class TestTheIndexOfABundle:
    @pytest.mark.parametrize(
        "entry",
        [
            {"name": "../../escaped/A"},
            {"name": "\x1b[2J\x1b]0;x\x07"},
            {"name": "A\u202eB"},
            {"name": "x" * 65},
            {"name": ""},
            {"unet": "../unet"},
            {"unet": "/etc"},
            {"unet": "a\\..\\..\\b"},
            {"unet": "out/unet"},
            {"adapter": "../adapter.safetensors"},
            {"adapter": "out/adapter.safetensors"},
            {"unet": None, "pipeline": "/"},
            {"steps": 10**9},
            {"steps": 0},
            {"side": 1 << 20},
            {"scale": 1e30},
            {"guidance": -1.0},
            {"tap": "x" * 100},
        ],
        ids=str,
    )
    def test_a_generator_beyond_bounds_is_refused(self, bundle: Path, entry: dict[str, Any]) -> None:
        (bundle / "out").symlink_to("../secret")
        told = json.loads((bundle / "portrait.json").read_text())
        told["generators"][0] |= entry
        (bundle / "portrait.json").write_text(json.dumps(told))
        with pytest.raises(ModelError, match=r"portrait\.json of .* cannot be used") as refused:
            find_bundle(str(bundle))
        assert str(refused.value).isprintable()

    @pytest.mark.parametrize("key", ["image_encoder", "recogniser", "face_encoder", "face_check", "people"])
    @pytest.mark.parametrize("path", ["..", "../secret", "/etc", "out", "a\0b"])
    def test_no_path_of_it_leaves_its_folder(self, bundle: Path, key: str, path: str) -> None:
        (bundle / "out").symlink_to("../secret")
        change(bundle / "portrait.json", **{key: path})
        with pytest.raises(ModelError, match=r"portrait\.json of .* cannot be used"):
            find_bundle(str(bundle))

    @pytest.mark.parametrize("part", ["vae", "text_encoder", "tokenizer", "scheduler"])
    def test_nor_does_a_part_that_it_does_not_name(self, bundle: Path, part: str) -> None:
        shutil.rmtree(bundle / part)
        (bundle / part).symlink_to("../secret")
        with pytest.raises(ModelError, match="leads out of the bundle"):
            find_bundle(str(bundle))

    def test_names_that_one_file_system_would_not_tell_apart(self, bundle: Path) -> None:
        told = json.loads((bundle / "portrait.json").read_text())
        told["generators"][1]["name"] = told["generators"][0]["name"].lower()
        (bundle / "portrait.json").write_text(json.dumps(told))
        with pytest.raises(ModelError, match="two generators have one name"):
            find_bundle(str(bundle))

    @pytest.mark.parametrize(
        "text", ["[" * 100_000, " " * (1 << 21), '{"schema_version": 1, "schema_version": 1}', "3"]
    )
    def test_what_is_no_index(self, bundle: Path, text: str) -> None:
        (bundle / "portrait.json").write_text(text)
        with pytest.raises(ModelError, match=r"portrait\.json of .* cannot be used"):
            find_bundle(str(bundle))

    def test_a_mark_before_it_is_passed_over(self, bundle: Path) -> None:
        path = bundle / "portrait.json"
        path.write_text("\ufeff" + path.read_text())
        assert find_bundle(str(bundle)) is not None


@pytest.mark.usefixtures("quick")
class TestNumbers:
    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("num_hidden_layers", 10**9),
            ("hidden_size", 10**6),
            ("intermediate_size", 10**8),
            ("image_size", 10**7),
            ("num_attention_heads", 10**9),
            ("num_attention_heads", 0),
            ("num_channels", 10**6),
            ("layer_norm_eps", -1.0),
            ("num_hidden_layers", 3.0),
            ("num_hidden_layers", True),
            ("hidden_size", "16"),
            ("hidden_act", "os.system"),
            ("hidden_act", 3),
        ],
    )
    @pytest.mark.parametrize("read", [card_of, lambda path: load_encoder(EncoderParams(source=path), "cpu")])
    def test_of_an_encoder(self, tiny_folder: Path, key: str, value: object, read: Callable[[str], object]) -> None:
        change(tiny_folder / "config.json", **{key: value})
        with pytest.raises(ModelError, match=r"config\.json"):
            read(str(tiny_folder))

    @pytest.mark.parametrize("extra", ["vision_model.encoder.layers.99999.x", "vision_model.encoder.layers.7.x"])
    def test_of_a_block_in_a_name(self, tiny_folder: Path, extra: str) -> None:
        state = load_file(tiny_folder / "model.safetensors")
        save_file(state | {extra: torch.zeros(1)}, tiny_folder / "model.safetensors")
        (tiny_folder / "config.json").unlink()
        with pytest.raises(ModelError, match="there is no block 3"):
            card_of(str(tiny_folder))

    @pytest.mark.parametrize(
        "settings",
        [
            *({"size": {"shortest_edge": 8000}}, {"size": 10**9}, {"crop_size": {"height": -1, "width": 16}}),
            *({"size": [3.0]}, {"preprocess": 1}, {"__class__": 1}, {"image_mean": [0.5]}),
            {"do_resize": False, "do_center_crop": False},
        ],
    )
    def test_of_preprocessing(self, tiny_folder: Path, settings: dict[str, Any]) -> None:
        usual = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
        (tiny_folder / "preprocessor_config.json").write_text(json.dumps(usual))
        load_encoder(EncoderParams(source=str(tiny_folder)), "cpu")
        change(tiny_folder / "preprocessor_config.json", **settings)
        with pytest.raises(ModelError, match="preprocessor_config"):
            load_encoder(EncoderParams(source=str(tiny_folder)), "cpu")

    @pytest.mark.parametrize(
        ("part", "values"),
        [
            ("a/unet", {"layers_per_block": 10**9}),
            ("a/unet", {"layers_per_block": 10**6}),
            ("a/unet", {"cross_attention_dim": 10**7}),
            ("text_encoder", {"num_hidden_layers": 10**9}),
            ("text_encoder", {"num_hidden_layers": 10**6}),
            ("text_encoder", {"vocab_size": 10**7}),
            ("vae", {"num_encoder_blocks": [10**6, 1]}),
        ],
    )
    def test_of_a_part_of_a_generator(self, bundle: Path, part: str, values: dict[str, Any]) -> None:
        change(bundle / part / "config.json", **values)
        with pytest.raises(ModelError, match=r"more weights than its files hold|states 1000000000"):
            load_generators(str(bundle), ["image_embeds"], "cpu")

    def test_of_a_scheduler(self, bundle: Path) -> None:
        change(bundle / "scheduler" / "scheduler_config.json", num_train_timesteps=10**10)
        with pytest.raises(ModelError, match="states 10000000000 for num_train_timesteps"):
            load_generators(str(bundle), ["image_embeds"], "cpu")

    @pytest.mark.parametrize(
        "values",
        [
            *({"widths": [4, 10**9]}, {"blocks": [1, 200]}, {"blocks": [10**9, 1]}, {"widths": [4] * 100}),
            *({"tail": 0}, {"embedding": 17}, {"name": "\x1b[2J"}, {"name": "../x"}),
        ],
    )
    def test_of_a_recogniser(self, bundle: Path, values: dict[str, Any]) -> None:
        load_recogniser(bundle / "recogniser")
        change(bundle / "recogniser" / "config.json", **values)
        with pytest.raises(ModelError):
            load_recogniser(bundle / "recogniser")

    @pytest.mark.parametrize("values", [{"widths": [10**9]}, {"widths": []}, {"widths": [8] * 7}, {"threshold": 2}])
    def test_of_a_face_check(self, bundle: Path, values: dict[str, Any]) -> None:
        load_face_check(bundle / "face_check")
        change(bundle / "face_check" / "config.json", **values)
        with pytest.raises(ModelError):
            load_face_check(bundle / "face_check")


class TestCodeBesideWeights:
    @pytest.mark.parametrize(
        "values",
        [
            {"auto_map": {"AutoModel": "evil.Model"}},
            {"attn_implementation": "somebody/kernel"},
            {"_attn_implementation": "kernels-community/flash-attn"},
            {"trust_remote_code": True},
            {"quantization_config": {"quant_method": "bitsandbytes"}},
        ],
    )
    def test_settings_that_name_code(self, tiny_folder: Path, bundle: Path, values: dict[str, Any]) -> None:
        change(tiny_folder / "config.json", **values)
        for read in (card_of, lambda path: load_encoder(EncoderParams(source=path), "cpu")):
            with pytest.raises(ModelError, match=r"asks to load code|are quantised"):
                read(str(tiny_folder))
        change(bundle / "text_encoder" / "config.json", **values)
        with pytest.raises(ModelError, match=r"asks to load code|are quantised"):
            load_generators(str(bundle), ["image_embeds"], "cpu")

    @pytest.mark.parametrize(
        ("index", "words"),
        [
            ({"_class_name": ["pipeline", "Evil"]}, "names code in the folder instead of a class of diffusers"),
            ({"_class_name": "os"}, "does not have"),
            ({"_class_name": "DDPMPipeline"}, "takes no IP-Adapter"),
            ({"_class_name": "DiffusionPipeline", "custom_pipeline": "evil"}, "asks to load code"),
            ({"unet": ["evil", "Unet"]}, "is of the library evil"),
            ({"unet": ["os", "system"]}, "is of the library os"),
            ({"unet": ["diffusers", "pipelines"]}, "does not have"),
            ({"unet": ["transformers", "pipeline"]}, "does not have"),
            ({"unet": ["diffusers", "StableDiffusionPipeline"]}, "not a model, a tokenizer or a scheduler"),
            ({"unet": [["evil", "x"], "Unet"]}, "is of the library"),
            ({"unet": ["diffusers", ["evil", "Unet"]]}, "does not have"),
            ({"../unet": ["diffusers", "UNet2DConditionModel"]}, "which cannot be the name of a part"),
            ({"unet": ["diffusers"]}, "which cannot be the name of a part"),
        ],
    )
    def test_indexes_of_pipelines(self, tmp_path: Path, index: dict[str, Any], words: str) -> None:
        (tmp_path / "p").mkdir()
        for name in ("pipeline.py", "evil.py"):
            (tmp_path / "p" / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        whole = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.36.0"} | index
        (tmp_path / "p" / "model_index.json").write_text(json.dumps(whole))
        with pytest.raises(ModelError, match=words):
            open_pipeline(tmp_path / "p", tmp_path / "a.safetensors", torch.float32, "cpu")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize(
        "values",
        [
            {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}},
            {"vocab_file": "/etc/passwd"},
            {"tokenizer_file": "../../x.json"},
            {"fast_tokenizer_files": ["tokenizer.4.0.0/../../x.json"]},
        ],
    )
    def test_tokenizers(self, bundle: Path, values: dict[str, Any]) -> None:
        change(bundle / "tokenizer" / "tokenizer_config.json", **values)
        with pytest.raises(ModelError, match=r"asks to load code|names files elsewhere"):
            load_generators(str(bundle), ["image_embeds"], "cpu")

    @pytest.mark.parametrize("name", ["StableDiffusionPipeline", "os", ["x", "y"], None, "UNet2DConditionModel"])
    def test_schedulers(self, bundle: Path, name: Any) -> None:
        change(bundle / "scheduler" / "scheduler_config.json", _class_name=name)
        with pytest.raises(ModelError, match="scheduler"):
            load_generators(str(bundle), ["image_embeds"], "cpu")


class TestWeights:
    """What values mean nothing without is not passed over."""

    @pytest.mark.parametrize(
        "beside",
        [
            f"{FIRST}.{kind}"
            for kind in ("scale_weight", "weight_scale", "SCB", "weight.absmax", "lora_A.default.weight")
        ],
    )
    def test_scales_and_adapters(self, tiny_folder: Path, beside: str) -> None:
        state = load_file(tiny_folder / "model.safetensors")
        if "lora" not in beside:
            state[f"{FIRST}.weight"] = state[f"{FIRST}.weight"].to(torch.float8_e4m3fn)
        save_file(state | {beside: torch.ones(1)}, tiny_folder / "model.safetensors", {"format": "pt"})
        for read in (card_of, lambda path: load_encoder(EncoderParams(source=path), "cpu")):
            with pytest.raises(ModelError, match=f"incomplete without another tensor: {beside}"):
                read(str(tiny_folder))

    @pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int64, torch.bool])
    def test_whole_numbers(self, tiny_folder: Path, kind: torch.dtype) -> None:
        state = load_file(tiny_folder / "model.safetensors")
        state[f"{FIRST}.weight"] = state[f"{FIRST}.weight"].to(kind)
        save_file(state, tiny_folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match=f"holds {FIRST}.weight in {str(kind).removeprefix('torch.')}"):
            load_encoder(EncoderParams(source=str(tiny_folder)), "cpu")

    def test_eight_bits_alone_are_values_and_are_called_so(self, tiny_folder: Path) -> None:
        state = load_file(tiny_folder / "model.safetensors")
        short = {
            name: tensor.to(torch.float8_e4m3fn) if tensor.ndim == 2 else tensor.half()
            for name, tensor in state.items()
        }
        positions = {"vision_model.embeddings.position_ids": torch.arange(5)[None]}
        save_file(short | positions, tiny_folder / "model.safetensors", {"format": "pt"})
        assert card_of(str(tiny_folder)).dtype == "float8_e4m3fn and float16"
        model = load_encoder(EncoderParams(source=str(tiny_folder)), "cpu").model
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, short[name].float())

    def test_an_archive_that_unpacks_to_more(self, tmp_path: Path) -> None:
        torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "x.bin")
        with zipfile.ZipFile(tmp_path / "x.bin") as plain, zipfile.ZipFile(tmp_path / "y.bin", "w", 8) as packed:
            for info in plain.infolist():
                packed.writestr(info.filename, plain.read(info))
        open_file(tmp_path / "x.bin")
        with pytest.raises(ModelError, match="is a compressed archive"):
            open_file(tmp_path / "y.bin")

    def test_a_tensor_that_is_one_number_stretched(self, tmp_path: Path) -> None:
        torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "x.bin")
        with pytest.raises(ModelError, match="many times larger than the file"):
            open_file(tmp_path / "x.bin")

    @pytest.mark.usefixtures("quick")
    def test_dictionaries_that_stand_in_each_other(self, tmp_path: Path) -> None:
        tree: dict[str, Any] = {"x": torch.zeros(1)}
        for _ in range(40):
            tree = {"a": tree, "b": tree}
        circle: dict[str, Any] = {}
        circle["a"] = circle
        for number, each in enumerate((tree, circle)):
            torch.save(each, tmp_path / f"{number}.bin")
            with pytest.raises(ModelError, match="form a circle, or are too many"):
                open_file(tmp_path / f"{number}.bin")

    @pytest.mark.parametrize("name", ["\x1b[2J", "x" * 600])
    def test_names_that_are_none(self, tmp_path: Path, name: str) -> None:
        save_file({name: torch.zeros(1)}, tmp_path / "x.safetensors")
        with pytest.raises(ModelError, match="whose name is not valid") as refused:
            open_file(tmp_path / "x.safetensors")
        assert str(refused.value).isprintable()

    @pytest.mark.parametrize("shard", ["../x.safetensors", "/etc/passwd", "a/x.safetensors", "..", "", "\x1b[2J"])
    def test_indexes_of_shards(self, tiny_folder: Path, shard: str) -> None:
        (tiny_folder / "model.safetensors").unlink()
        (tiny_folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": shard}}))
        with pytest.raises(ModelError, match="not beside it") as refused:
            load_encoder(EncoderParams(source=str(tiny_folder)), "cpu")
        assert str(refused.value).isprintable()


class TestFilesAsTheyArrive:
    @pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 25\n",
                r"a git-lfs pointer \(\d+ bytes\)",
            ),
            (b"<!doctype html><html><body>Access is restricted</body></html>", "is a web page"),
            (b"", "is empty"),
            (b"rubbish" * 40, "is not a|is damaged"),
            (None, "ends early"),
        ],
    )
    @pytest.mark.parametrize("read", [card_of, lambda path: load_encoder(EncoderParams(source=path), "cpu")])
    def test_the_cause_is_named(
        self, tiny_folder: Path, name: str, content: bytes | None, words: str, read: Callable[[str], object]
    ) -> None:
        state = load_file(tiny_folder / "model.safetensors")
        (tiny_folder / "model.safetensors").unlink()
        path = tiny_folder / name
        torch.save(state, path) if name.endswith(".bin") else save_file(state, path, {"format": "pt"})
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
        with pytest.raises(ModelError, match=words):
            read(str(tiny_folder))

    def test_variants_and_the_cache_of_the_hub(self, tiny_folder: Path, tmp_path: Path) -> None:
        snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
        shutil.copytree(tiny_folder, snapshot)
        load_encoder(EncoderParams(source=str(snapshot)), "cpu")
        with pytest.raises(ModelError, match=r"a folder of the hub's cache\. Name the snapshot in it: snapshots/0123"):
            card_of(str(tmp_path / "models--a--b"))
        (tiny_folder / "model.safetensors").rename(tiny_folder / "model.fp16.safetensors")
        with pytest.raises(ModelError, match=r"no loader looks for: model\.fp16\.safetensors\. Name"):
            load_encoder(EncoderParams(source=str(tiny_folder)), "cpu")

    def test_what_a_model_lacks(self, tiny_folder: Path) -> None:
        state = load_file(tiny_folder / "model.safetensors")
        del state["visual_projection.weight"]
        save_file(state, tiny_folder / "model.safetensors", {"format": "pt"})
        for read in (card_of, lambda path: load_encoder(EncoderParams(source=path), "cpu")):
            with pytest.raises(ModelError, match=r"lacks visual_projection\.weight"):
                read(str(tiny_folder))

    def test_a_folder_of_a_whole_clip_is_read_as_its_file_is(self, tiny_folder: Path) -> None:
        before = load_encoder(EncoderParams(source=str(tiny_folder)), "cpu")
        vision = json.loads((tiny_folder / "config.json").read_text())
        width = vision.pop("projection_dim")
        whole = {"architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": width, "text_config": {}}
        (tiny_folder / "config.json").write_text(json.dumps(whole | {"vision_config": vision}))
        for place in (tiny_folder, tiny_folder / "model.safetensors"):
            found = load_encoder(EncoderParams(source=str(place)), "cpu")
            assert (found.fingerprint, found.architecture) == (before.fingerprint, before.architecture)

    @pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
    def test_a_mark_before_settings_is_passed_over(self, tiny_folder: Path, name: str) -> None:
        usual = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
        (tiny_folder / "preprocessor_config.json").write_text(json.dumps(usual))
        before = load_encoder(EncoderParams(source=str(tiny_folder)), "cpu")
        (tiny_folder / name).write_text("\ufeff" + (tiny_folder / name).read_text())
        found = load_encoder(EncoderParams(source=str(tiny_folder)), "cpu")
        assert (found.fingerprint, found.preprocessing) == (before.fingerprint, before.preprocessing)
