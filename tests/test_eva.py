"""EVA02-CLIP: told by its tensors, computed as its readers compute it, edited, and written back into its file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ireu_cli.coverage import coverage_of
from ireu_cli.encoders import groups
from ireu_cli.encoders.clip import Encoder
from ireu_cli.encoders.eva.encoder import EvaEncoder
from ireu_cli.encoders.eva.tower import EvaConfig, EvaTower, config_in, turns
from ireu_cli.encoders.families import card_of, load_encoder
from ireu_cli.encoders.files.checkpoint import open_checkpoint
from ireu_cli.encoders.reach import EVA, Reach, reach_of, select_weights
from ireu_cli.encoders.systems import systems_of
from ireu_cli.errors import ConfigError, ModelError
from ireu_cli.params import ARCFACE_LANDMARKS, EncoderParams, Tap
from ireu_cli.unlearning.block.one_block import Tail
from ireu_cli.values import WeightDelta
from tests.conftest import manifest, run_ireu
from tests.tiny_eva import DEEP, FILE, TINY, TRUE, as_eva_clip, random_state, tables, turned, whole_state, write_eva

DEPTHS = "block-1+block-2+block-3"
PULID = "block-4+block-8+block-12+block-16+block-20"
EARLY = tuple(f"visual.blocks.{number}." for number in range(4))
EVERY = [*EVA.taps, *(f"block-{number}" for number in range(TINY.num_hidden_layers)), DEPTHS, "block-2+pooled"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_eva(tmp_path / "eva" / FILE)


def load(place: Path, tap: Tap = "image_embeds", dtype: Any = "float32") -> EvaEncoder:
    found = load_encoder(EncoderParams(source=str(place), tap=tap, dtype=dtype), ARCFACE_LANDMARKS, "cpu")
    assert isinstance(found, EvaEncoder)
    return found


def own(place: Path) -> dict[str, Tensor]:
    """The tower in a file, under its own names."""
    state = torch.load(place, weights_only=True)
    return {name.removeprefix("visual."): each.float() for name, each in state.items() if name.startswith("visual.")}


def pixels(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 28, 28, generator=torch.Generator().manual_seed(3))


class TestReading:
    def test_taps_are_what_its_readers_compute(self, file: Path) -> None:
        """PuLID takes the states that enter blocks, and the head."""
        encoder = load(file)
        head, entering = as_eva_clip(own(file), pixels())
        torch.testing.assert_close(encoder.encode(pixels(), "image_embeds"), head)
        for number, states in enumerate(entering):
            torch.testing.assert_close(encoder.encode(pixels(), f"block-{number}"), states, rtol=1e-4, atol=1e-5)
        joined = encoder.encode(pixels(), DEPTHS)
        assert torch.equal(joined, torch.cat([encoder.encode(pixels(), f"block-{n}") for n in (1, 2, 3)], dim=1))
        assert torch.equal(encoder.encode(pixels(), "penultimate"), encoder.encode(pixels(), "block-3"))

    @pytest.mark.parametrize("row", [4, 16, 24])
    def test_patches_are_turned_by_the_published_angles(self, row: int) -> None:
        config = EvaConfig(64, 8, 1, 14, 14 * row, 8)
        for mine, table in zip(turns(row), tables(config).values(), strict=True):
            torch.testing.assert_close(mine, table, rtol=1e-4, atol=1e-5)
        states = torch.randn(1, row * row + 1, 64, generator=torch.Generator().manual_seed(1))
        assert torch.equal(turned(states, row)[:, 0], states[:, 0])

    def test_the_angles_serve_with_gradients_after_they_were_asked_for_without(self, file: Path) -> None:
        encoder = load(file)
        turns.cache_clear()
        encoder.encode(pixels(), "last")
        wanted = pixels().requires_grad_()
        (grad,) = torch.autograd.grad(encoder.read(encoder.model, wanted, "last").sum(), [wanted])
        assert grad.abs().sum() > 0

    def test_the_true_sizes_are_told_by_its_tensors(self) -> None:
        with torch.device("meta"):
            state = EvaTower(TRUE).state_dict()
        found = config_in({name: tuple(tensor.shape) for name, tensor in state.items()})
        assert found == TRUE
        assert found.num_attention_heads == 16
        assert groups.groups_of_eva(found) == ("E",)
        assert {"pulid", "consisid", "ecomid", "ingredients"} == set(systems_of(["E"]))
        assert groups.groups_of_eva(EvaConfig(1024, 2730, 24, 14, 224, 768)) == ()

    @pytest.mark.parametrize("how", ["module.", "model", "alone", "safetensors", "float32", "no tables"])
    def test_files_of_every_kind_hold_the_same_encoder(self, how: str, file: Path, tmp_path: Path) -> None:
        state = torch.load(file, weights_only=True)
        other = tmp_path / ("x.safetensors" if how == "safetensors" else "x.pt")
        trees: dict[str, Callable[[], Any]] = {
            "module.": lambda: {f"module.{name}": each for name, each in state.items()},
            "model": lambda: {"model": state, "epoch": 3},
            "alone": lambda: {name.removeprefix("visual."): each for name, each in state.items() if "visual." in name},
            "safetensors": lambda: state,
            "float32": lambda: {name: each.float() for name, each in state.items()},
            "no tables": lambda: {name: each for name, each in state.items() if "rope" not in name},
        }
        save_file(state, other) if how == "safetensors" else torch.save(trees[how](), other)
        assert load(other).fingerprint == load(file).fingerprint == card_of(str(other)).fingerprint

    @pytest.mark.parametrize(
        ("name", "change", "words"),
        [
            ("blocks.1.mlp.w2.weight", None, "lacks 1 weights, first blocks.1.mlp.w2.weight"),
            ("blocks.2.attn.q_bias", None, "lacks 1 weights, first blocks.2.attn.q_bias"),
            ("head.bias", None, "lacks 1 weights, first head.bias"),
            ("head.weight", None, "cannot be told from its tensors"),
            ("blocks.1.attn.k_proj.bias", lambda _: torch.ones(128), "holds blocks.1.attn.k_proj.bias, which"),
            ("blocks.1.gamma_1", lambda _: torch.ones(128), "holds blocks.1.gamma_1, which"),
            ("blocks.1.mlp.ffn_ln.weight", lambda tensor: tensor[1:], "does not have in that shape"),
            ("pos_embed", lambda tensor: tensor[:, 1:], "does not have in that shape"),
            ("pos_embed", lambda tensor: tensor[:, :1], "cannot be told from its tensors"),
            ("cls_token", lambda tensor: tensor[0], "does not have in that shape"),
            ("blocks.0.mlp.w1.weight", lambda tensor: tensor.to(torch.int8), "in int8"),
            ("blocks.0.mlp.w1.scale_weight", lambda _: torch.ones(1), "holds blocks.0.mlp.w1.scale_weight"),
            ("rope.freqs_cos", lambda tensor: -tensor, "turns its patches by other angles"),
            ("blocks.3.attn.rope.freqs_sin", lambda tensor: tensor[1:], "turns its patches by other angles"),
        ],
    )
    def test_names_shapes_and_angles_are_checked(
        self, file: Path, name: str, change: Callable[[Tensor], Tensor] | None, words: str
    ) -> None:
        state = torch.load(file, weights_only=True)
        there = f"visual.{name}"
        found = state.pop(there, torch.ones(1))
        torch.save(state if change is None else {**state, there: change(found)}, file)
        for read in (load, lambda path: card_of(str(path))):
            with pytest.raises(ModelError, match=words):
                read(file)

    def test_nothing_is_unpickled(self, file: Path) -> None:
        torch.save(torch.load(file, weights_only=True) | {"more": Path("x")}, file)
        with pytest.raises(ModelError, match="would have to be unpickled"):
            load(file)

    def test_taps_that_it_does_not_have_are_refused(self, file: Path) -> None:
        for tap, words in {
            "embedding": "Only face-embedding networks have a tap embedding",
            "block-4": "block-0 to block-3",
            "block-1+image_embeds": "which is 48 wide",
        }.items():
            with pytest.raises(ConfigError, match=words):
                load(file, tap)

    def test_under_guidance_its_readers_are_sent_zeros(self, file: Path) -> None:
        encoder = load(file)
        for tap in ("image_embeds", DEPTHS):
            assert encoder.null_features(tap).shape == encoder.encode(pixels(1), tap)[0].shape
            assert not encoder.null_features(tap).any()


class TestEditing:
    @pytest.mark.parametrize("part", ["embeddings", "block:0", "block:2", "block:3", "post_layernorm", "projection"])
    def test_an_edit_changes_the_taps_that_it_is_said_to_reach(self, part: str, file: Path) -> None:
        encoder = load(file)
        names = encoder.weights_for(part, "image_embeds")
        assert names
        state = encoder.model.state_dict()
        draw = torch.Generator().manual_seed(5)
        delta = WeightDelta({name: 0.3 * torch.randn(state[name].shape, generator=draw) for name in names})
        edited, reach = encoder.edited(delta), encoder.reached_by(delta)
        assert isinstance(edited, EvaEncoder)
        for tap in EVERY:
            before, after = (each.encode(pixels(), tap) for each in (encoder, edited))
            assert reach.changes(tap) == (not torch.equal(before, after)), tap
            assert reach.includes(tap) <= reach.changes(tap)

    def test_all_is_every_weight(self, file: Path) -> None:
        names = list(load(file).model.state_dict())
        parts = ["embeddings", "blocks:0-3", "post_layernorm", "projection"]
        assert select_weights(names, ",".join(parts), 4, "image_embeds", EVA) == sorted(names)

    def test_the_part_behind_a_block_is_that_of_the_whole(self, file: Path) -> None:
        encoder = load(file)
        for block, tap in ((3, "image_embeds"), (2, "penultimate"), (1, "last")):
            tail = Tail(encoder, block, tap)
            assert torch.equal(tail(encoder.entering(pixels(), block)), encoder.encode(pixels(), tap))

    def test_what_stands_behind_the_class_token_can_be_undone(self, file: Path) -> None:
        encoder = load(file)
        states = encoder.last_state(encoder.model, pixels(3))
        for tap in ("pooled", "image_embeds"):
            assert torch.allclose(encoder.read_out(encoder.model, states, tap), encoder.encode(pixels(3), tap))
        plain = torch.nn.functional.layer_norm(states, states.shape[-1:], eps=1e-6).double()
        back = encoder.encode(pixels(3), "pooled").double() - encoder.model.norm.bias.double()
        torch.testing.assert_close(
            back @ encoder.readout_inverse(encoder.model, "pooled").T, plain, rtol=1e-4, atol=1e-5
        )

    def test_the_original_keeps_every_bit(self, file: Path) -> None:
        encoder = load(file)
        before = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
        name = "blocks.3.mlp.w3.bias"
        edited = encoder.edited(WeightDelta({name: torch.ones(128)}), "float16")
        assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.model.state_dict().items())
        assert edited.dtype == "float16"
        assert edited.fingerprint != encoder.fingerprint


class TestCoverage:
    """Which of the six depths an edit changes is said, for each generator that reads them."""

    def told(self, layers: str, blocks: int = 24) -> str:
        names = select_weights([f"blocks.{n}.mlp.w3.bias" for n in range(blocks)], layers, blocks, "image_embeds", EVA)
        found = coverage_of("pulid", {"E": reach_of(names, blocks, EVA)})
        return f"{found.status}: {found.why}"

    def test_an_edit_before_block_4_changes_everything_that_is_read_of_it(self) -> None:
        assert self.told("blocks:0-3") == "half covered: also reads embedding of ArcFace r100"
        assert self.told("block:3") == self.told("blocks:0-3")

    def test_a_late_edit_leaves_the_early_depths(self) -> None:
        assert self.told("block:23") == (
            "not covered: reads block-4, block-8, block-12, block-16 and block-20 of EVA02-CLIP-L-14-336 (the edit "
            "changes only image_embeds of it) and embedding of ArcFace r100"
        )
        assert "reads block-4 and block-8 of EVA02-CLIP-L-14-336 (the edit changes only block-12, " in self.told(
            "block:11"
        )

    def test_both_edits_cover_it(self) -> None:
        whole = reach_of(["blocks.0.norm1.bias"], 24, EVA)
        for name in systems_of(["E"]):
            found = coverage_of(name, {"E": whole, "R100": Reach(("embedding", "normed_embedding"), ())})
            assert found.status == "covered"


def changed_in(source: Path, place: Path) -> set[str]:
    """The tensors of a file that an export changed; the others keep their bits, and all keep their order and form."""
    before, after = (torch.load(path, weights_only=True) for path in (source, place))
    assert [*before] == [*after]
    assert all(before[name].dtype == after[name].dtype and before[name].shape == after[name].shape for name in before)
    return {name for name in before if not torch.equal(before[name], after[name])}


class TestCommands:
    @pytest.fixture(scope="class")
    def folder(self, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("eva") / "demo"
        shutil.copytree(samples, folder)
        write_eva(folder.parent / "eva" / FILE, DEEP)
        return folder

    def located(self, folder: Path, tap: str, *flags: str) -> Path:
        source = folder.parent / "eva" / FILE
        done = run_ireu(
            "locate",
            "--encoder",
            source,
            "--tap",
            tap,
            "--method",
            "all",
            *flags,
            "--force",
            "-o",
            "mask.pt",
            cwd=folder,
        )
        assert done.code == 0, done.err
        return source

    def test_early_blocks_are_trained_for_all_depths(self, folder: Path) -> None:
        source = self.located(folder, PULID, "--set", "encoder.groups=E")
        flags = ("--method", "ireu", "--layers", "blocks:0-3", "--steps", "3", "--force")
        done = run_ireu("unlearn", "--mask", "mask.pt", *flags, cwd=folder)
        assert done.code == 0, done.err
        assert f"The edit changes everything that is read at {PULID}" in done.err
        assert "PuLID v1, v1.1 (SDXL) and v0.9 (FLUX): half covered: also reads embedding of ArcFace r100" in done.err
        done = run_ireu("export", "--delta", "delta.safetensors", "--allow-failed", "-o", "out", "--force", cwd=folder)
        assert done.code == 0, done.err
        assert "Ingredients, video of several people: half covered" in done.err
        changed = changed_in(source, folder / "out" / FILE)
        assert changed
        assert all(name.startswith(EARLY) for name in changed)
        told = json.loads((folder / "out" / "ireu.json").read_text())["metrics"]
        assert load(folder / "out" / FILE).fingerprint == told["edited_encoder"]
        # What loads it computes what the edited encoder does.
        head, entering = as_eva_clip(own(folder / "out" / FILE), pixels())
        encoder = load(folder / "out" / FILE)
        torch.testing.assert_close(encoder.encode(pixels(), "image_embeds"), head)
        torch.testing.assert_close(encoder.encode(pixels(), "block-1"), entering[1], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(load(source).encode(pixels(), "block-1"), entering[1], atol=1e-3)

    def test_the_last_block_is_trained_for_the_head_and_verified(self, folder: Path) -> None:
        source = self.located(folder, "image_embeds", "--set", "encoder.groups=E")
        done = run_ireu("unlearn", "--mask", "mask.pt", "--method", "block", "--steps", "20", "--force", cwd=folder)
        assert done.code == 0, done.err
        assert "(the edit changes only image_embeds of it)" in done.err
        assert manifest(folder, "delta.safetensors")["metrics"]["reach"]["missed"] == ["penultimate"]
        done = run_ireu("verify", "--delta", "delta.safetensors", "--force", cwd=folder)
        assert done.code in {4, 5}, done.err
        report = json.loads((folder / "report" / "report.json").read_text())
        assert any("changes only image_embeds" in line for line in report["record"]["systems_missed"])
        done = run_ireu("export", "--delta", "delta.safetensors", "--allow-failed", "-o", "out", "--force", cwd=folder)
        assert done.code == 0, done.err
        assert all(name.startswith("visual.blocks.21.") for name in changed_in(source, folder / "out" / FILE))
        flags = ("--delta", "delta.safetensors", "--allow-failed", "--format", "clip-folder", "-o", "other")
        done = run_ireu("export", *flags, cwd=folder)
        assert done.code == 3
        assert "cannot be exported as clip-folder" in done.err

    def test_what_cannot_be_done_is_refused_and_says_why(self, folder: Path) -> None:
        self.located(folder, "image_embeds")
        done = run_ireu("unlearn", "--mask", "mask.pt", "--method", "gated", "--force", cwd=folder)
        assert done.code == 3
        assert "does not support a vision transformer of EVA02-CLIP: generators read it from block 4 on" in done.err
        self.located(folder, PULID)
        done = run_ireu("unlearn", "--mask", "mask.pt", "--method", "block", "--force", cwd=folder)
        assert done.code == 3
        assert f"does not support the tap {PULID}" in done.err

    def test_safetensors_are_copied_byte_by_byte_but_for_the_edit(self, folder: Path, tmp_path: Path) -> None:
        self.located(folder, "image_embeds")
        state = torch.load(folder.parent / "eva" / FILE, weights_only=True)
        save_file(state, tmp_path / "eva.safetensors")
        flags = ("--method", "global", "--layers", "projection", "--steps", "2", "--force")
        assert run_ireu("unlearn", "--mask", "mask.pt", *flags, cwd=folder).code == 0
        done = run_ireu(
            "export", "--encoder", tmp_path / "eva.safetensors", "--delta", "delta.safetensors", "--allow-failed",
            "-o", "out", "--force", cwd=folder,
        )  # fmt: skip
        assert done.code == 0, done.err
        after = load_file(folder / "out" / "eva.safetensors")
        changed = {name for name in state if not torch.equal(state[name], after[name])}
        assert changed
        assert changed <= {"visual.head.weight", "visual.head.bias"}

    def test_several_files_are_refused(self, file: Path, tmp_path: Path) -> None:
        """Exports are one file, as the generators load it."""
        state = {name: part.contiguous() for name, part in torch.load(file, weights_only=True).items()}
        folder, names = tmp_path / "shards", sorted(state)
        folder.mkdir()
        places = {name: f"model-{1 + number % 2:05d}-of-00002.safetensors" for number, name in enumerate(names)}
        for shard in set(places.values()):
            save_file({name: state[name] for name in names if places[name] == shard}, folder / shard)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
        done = run_ireu("inspect", folder)
        assert (done.code, "EVA02-CLIP is read from one file" in done.err) == (3, True), done.err

    def test_inspect_names_the_depths_and_who_reads_them(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(groups, "_EVA_SIZES", {(128, 4, 7, 28): "E"})
        told = run_ireu("inspect", file, "--json").json
        assert told["kind"] == "EVA02-CLIP vision transformer"
        assert told["layout"] == "eva-clip"
        depths = [f"block-{number}" for number in (4, 8, 12, 16, 20)]
        assert set(told["taps"]) == {*depths, *EVA.taps}
        readers = ["pulid", "ecomid", "consisid", "ingredients"]
        assert all(told["taps"][tap] == readers for tap in (*depths, "image_embeds"))
        assert told["taps"]["last"] == []
        assert told["edit_sites"]["block 3"] == ["last", "pooled", "image_embeds"]
        assert told["edit_sites"]["projection"] == ["image_embeds"]


def test_it_is_an_encoder_of_clips_family_in_everything_else(file: Path) -> None:
    encoder = load(file)
    assert isinstance(encoder, Encoder)
    assert encoder.tokens == 17
    assert encoder.width == 128
    assert encoder.whole_tap == "image_embeds"
    assert encoder.architecture == "eva02-vit 128x4 patch 7 image 28 proj 48"
    assert open_checkpoint(file).layout.name == "eva-clip"
    assert set(random_state()) == set(encoder.model.state_dict())
    assert set(whole_state()) > {f"visual.{name}" for name in random_state()}
