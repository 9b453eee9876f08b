"""Which systems an edit covers: two channels are two channels, and what is asked for is reached or refused."""

import json
import re
import shutil
from pathlib import Path

import pytest

from ireu_cli.coverage import Status, coverage_of, needed_taps
from ireu_cli.encoders.face_encoder import FACE_TAPS
from ireu_cli.encoders.reach import Reach
from ireu_cli.encoders.systems import GROUPS, SYSTEMS, systems_of
from ireu_cli.encoders.vision_transformers import VISION_TRANSFORMERS
from ireu_cli.errors import ConfigError
from ireu_cli.params import TAPS, Tap, depth_of
from tests.conftest import manifest, run_ireu

EVERY: tuple[Tap, ...] = ("penultimate", "last", "pooled", "image_embeds")
LAST_BLOCK: tuple[Tap, ...] = ("pooled", "image_embeds")


@pytest.mark.parametrize(
    ("system", "reached", "status"),
    [
        ("ip-adapter", {"H": LAST_BLOCK}, "covered"),
        ("ip-adapter-plus", {"H": LAST_BLOCK}, "not covered"),
        ("ip-adapter-plus", {"H": EVERY}, "covered"),
        ("ip-adapter-full-face", {"H": LAST_BLOCK}, "not covered"),
        ("ip-adapter-plus", {"G": EVERY}, "not covered"),
        ("ip-adapter-faceid-plus", {"H": EVERY}, "half covered"),
        ("ip-adapter-faceid-plus", {"R50": FACE_TAPS}, "half covered"),
        ("ip-adapter-faceid-plus", {"R50": FACE_TAPS, "H": LAST_BLOCK}, "half covered"),
        ("ip-adapter-faceid-plus", {"R50": FACE_TAPS, "H": EVERY}, "covered"),
        ("consistentid", {"H": LAST_BLOCK}, "not covered"),
        ("hyperlora", {"L": LAST_BLOCK, "R100": FACE_TAPS}, "half covered"),
        ("kolors-ip-adapter-plus", {"336": LAST_BLOCK}, "not covered"),
        ("photomaker-v2", {"P2": LAST_BLOCK, "R50": FACE_TAPS}, "half covered"),
        ("photomaker-v2", {"P2": EVERY, "R50": FACE_TAPS}, "covered"),
        ("photomaker-v1", {"L": EVERY}, "not covered"),
        ("pulid", {"R100": FACE_TAPS}, "half covered"),
        ("pulid", {}, "not covered"),
        ("uniportrait", {"H": EVERY}, "half covered"),
        ("uniportrait", {"H": LAST_BLOCK}, "not covered"),
        ("infiniteyou", {"R100": FACE_TAPS}, "not covered"),
        ("infiniteyou", {"IR50": ("normed_embedding",)}, "covered"),
        ("id-patch", {"IR50": ("normed_embedding",)}, "covered"),
        ("reactor", {"R50": FACE_TAPS}, "covered"),
        ("facefusion", {"R50": FACE_TAPS}, "not covered"),
        ("facefusion", {"FF": FACE_TAPS}, "covered"),
        ("sd3-ip-adapter", {"L": EVERY}, "not covered"),
        ("sd3-ip-adapter", {"S": ("last", "pooled")}, "not covered"),
        ("sd3-ip-adapter", {"S": ("penultimate", "last", "pooled")}, "covered"),
        ("instantx-flux-ip-adapter", {"S": ("pooled",)}, "covered"),
        ("flux-redux", {"S": ("pooled",)}, "not covered"),
        ("token-editors", {"H": EVERY}, "by a gate only"),
        ("flux-kontext", {"R50": FACE_TAPS}, "by a gate only"),
        ("qwen-image-edit", {"R100": FACE_TAPS}, "by a gate only"),
        ("tuned-weights", {"R50": FACE_TAPS}, "out of reach"),
        ("arc2face", {"R100": FACE_TAPS}, "not covered"),
        ("wan-i2v", {"H": ("penultimate", "last", "pooled")}, "half covered"),
        ("wan-i2v", {"H": LAST_BLOCK}, "not covered"),
        ("wan-animate", {"H": EVERY}, "half covered"),
        ("chronoedit", {"H": EVERY}, "half covered"),
        ("storymaker", {"H": LAST_BLOCK, "R50": FACE_TAPS}, "half covered"),
        ("storymaker", {"H": EVERY, "R50": FACE_TAPS}, "covered"),
        ("inswapper", {"R50": FACE_TAPS}, "covered"),
        ("withanyone", {"R100": FACE_TAPS}, "half covered"),
        ("withanyone", {"R100": FACE_TAPS, "SB": ("penultimate", "last", "pooled")}, "half covered"),
        ("withanyone", {"R100": FACE_TAPS, "SB256": ("penultimate", "last", "pooled")}, "covered"),
        ("echovideo", {"R100": FACE_TAPS, "SB": ("penultimate", "last", "pooled")}, "half covered"),
        ("hunyuanportrait", {"A2F": FACE_TAPS}, "half covered"),
        ("hunyuanportrait", {"R100": FACE_TAPS}, "not covered"),
        ("xverse", {"L": EVERY}, "half covered"),
        ("anystory", {"S": ("last", "pooled")}, "half covered"),
        ("uniworld-v1", {"S": ("penultimate", "last", "pooled")}, "not covered"),
        ("uniworld-v1", {"S2": ("penultimate", "last", "pooled")}, "half covered"),
        ("svd", {"H": LAST_BLOCK}, "half covered"),
        ("svd", {"H": ("penultimate", "last", "pooled")}, "not covered"),
        ("framepack", {"S": ("last", "pooled")}, "half covered"),
        ("z-image-omni", {"S": ("penultimate", "last", "pooled")}, "out of reach"),
        ("facechain-fact", {"H": EVERY}, "out of reach"),
        ("phantom", {"H": EVERY}, "out of reach"),
        ("stand-in", {"R100": FACE_TAPS}, "out of reach"),
    ],
)
def test_a_system_is_covered_when_every_channel_is_reached(
    system: str, reached: dict[str, tuple[Tap, ...]], status: Status
) -> None:
    assert coverage_of(system, {group: Reach(taps, ()) for group, taps in reached.items()}).status == status


def test_half_covered_says_what_else_is_read() -> None:
    sentence = coverage_of("photomaker-v2", {"P2": Reach(EVERY, ())}).sentence()
    assert sentence == "PhotoMaker v2, SDXL: half covered: also reads embedding of ArcFace r50"
    sentence = coverage_of("skyreels-v2", {"H": Reach(EVERY, ())}).sentence()
    assert sentence == "SkyReels-V2 image-to-video: half covered: also reads the photo's latents of Wan's VAE"


@pytest.mark.parametrize(
    ("depths", "status"), [(range(8, 27), "half covered"), (range(9, 27), "not covered"), (range(0), "not covered")]
)
def test_every_depth_that_is_read_has_to_change(depths: range, status: Status) -> None:
    reach = Reach(("penultimate", "last", "pooled"), (), depths)
    assert coverage_of("uso", {"S": reach}).status == status


def test_who_is_not_edited_says_why() -> None:
    for name, group in GROUPS.items():
        assert bool(group.why_not) != group.edited, name


def test_a_source_is_a_repository_with_its_commit_and_files() -> None:
    sources = [system.source for system in SYSTEMS.values() if system.source]
    assert len(sources) > 30
    for source in sources:
        assert re.match(r"[\w.-]+/[\w.-]+@[0-9a-f]{7,8}(,| \S+\.py)", source), source


def test_every_channel_is_of_a_group_that_there_is() -> None:
    for system in SYSTEMS.values():
        for channel in system.channels:
            assert channel.group in GROUPS
            assert bool(channel.taps) == GROUPS[channel.group].edited
            assert channel.taps or channel.words
    assert set(systems_of(GROUPS)) == {name for name, system in SYSTEMS.items() if system.channels}


def test_needed_taps() -> None:
    assert needed_taps(["ip-adapter", "ip-adapter-plus", "consistentid"], ["H"]) == ("image_embeds", "penultimate")
    with pytest.raises(ConfigError, match="No system is called midjourney"):
        needed_taps(["midjourney"], ["H"])
    with pytest.raises(ConfigError, match="InstantID, SDXL does not read an encoder of the group H"):
        needed_taps(["instantid"], ["H"])


class TestCommands:
    @pytest.fixture(scope="class")
    def located(self, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("coverage") / "demo"
        shutil.copytree(samples, folder)
        text = (folder / "ireu.toml").read_text()
        (folder / "ireu.toml").write_text(text.replace("[encoder]", '[encoder]\ngroups = ["H"]'))
        assert run_ireu("locate", "--method", "all", cwd=folder).code == 0
        return folder

    def unlearn(self, folder: Path, *flags: str) -> tuple[int, str]:
        done = run_ireu("unlearn", "--mask", "mask.pt", *flags, "--force", cwd=folder)
        return done.code, done.err

    def test_the_edit_goes_where_the_named_systems_read(self, located: Path) -> None:
        """The mask is of the pooled vector; tokens need room that this small encoder does not have."""
        code, words = self.unlearn(located, "--method", "gated", "--for", "ip-adapter-plus")
        assert code == 3
        assert "gated.rank" in words
        code, words = self.unlearn(located, "--method", "gated", "--set", "gated.people=2", "--for", "ip-adapter")
        assert code == 0, words
        assert "IP-Adapter base: sd15, sd15_light, sdxl_vit-h: covered" in words
        told = manifest(located, "delta.safetensors")["metrics"]["coverage"]
        assert told == {"ip-adapter": {"status": "covered", "why": ""}}

    def test_layers_that_do_not_reach_them_are_refused(self, located: Path) -> None:
        flags = ("--method", "ireu", "--steps", "2", "--layers", "block:3,post_layernorm")
        code, words = self.unlearn(located, *flags, "--for", "ip-adapter-plus")
        assert code == 3
        assert "does not reach penultimate, which ip-adapter-plus read" in words
        code, words = self.unlearn(located, *flags)
        assert code == 0, words
        assert "IP-Adapter plus and plus-face, SD1.5 and SDXL: not covered: reads penultimate" in words

    def test_exports_say_which_systems_are_covered(self, located: Path) -> None:
        (located / "encoder" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# x\n")
        (located / "encoder" / "LICENSE").write_text("terms")
        assert self.unlearn(located, "--method", "ireu", "--steps", "2", "--layers", "blocks:0-1")[0] == 0
        done = run_ireu("export", "--allow-failed", "--delta", "delta.safetensors", "-o", "out", "--force", cwd=located)
        assert done.code == 0, done.err
        assert "IP-Adapter FaceID-Plus and PlusV2, SD1.5 and SDXL: half covered" in done.err
        told = json.loads((located / "out" / "ireu.json").read_text())["metrics"]
        assert told["coverage"]["ip-adapter-plus"]["status"] == "covered"
        assert told["coverage"]["consistentid"]["status"] == "half covered"
        card = (located / "out" / "README.md").read_text()
        assert "| IP-Adapter plus and plus-face, SD1.5 and SDXL | covered |" in card
        assert "license: apache-2.0" in card
        assert "It was **not verified** by `ireu verify`" in card
        assert f"in float32 and on features only: {told['verified_again']['outcome']}" in card
        assert (located / "out" / "LICENSE").read_text() == "terms"
        assert any("half covered" in line for line in told["record"]["systems_missed"])

    def test_the_original_is_never_replaced(self, located: Path) -> None:
        assert self.unlearn(located, "--method", "ireu", "--steps", "2")[0] == 0
        for name in ("README.md", "LICENSE"):
            (located / "encoder" / name).unlink(missing_ok=True)
        done = run_ireu(
            "export", "--allow-failed", "--delta", "delta.safetensors", "-o", "encoder", "--force", cwd=located
        )
        assert (done.code, "encoder contains the original encoder" in done.err) == (3, True)
        assert (located / "encoder" / "model.safetensors").exists()

    def test_unknown_groups_are_named(self, located: Path) -> None:
        code, words = self.unlearn(located, "--method", "ireu", "--steps", "2", "--set", "encoder.groups=Q")
        assert (code, "No group is called Q" in words) == (3, True)


def test_systems_read_taps_that_encoders_have() -> None:
    """A tap is a plain name: a misspelt one would never be reached."""
    read = {tap for system in SYSTEMS.values() for channel in system.channels for tap in channel.taps}
    assert {tap for tap in read if depth_of(tap) is None} <= {*VISION_TRANSFORMERS.taps, *FACE_TAPS}
    deep = {tap for channel in SYSTEMS["pulid"].channels for tap in channel.taps if depth_of(tap) is not None}
    assert deep == {f"block-{n}" for n in range(4, 21, 4)}
    assert all(tap in TAPS for tap in (*VISION_TRANSFORMERS.taps, *FACE_TAPS))
