"""Flag > manifest > environment > file > default; every mistake at once; the example is the schema."""

from pathlib import Path

import pytest
import tomli

from ireu_cli.config import example_toml, inherit, load_config, schema_keys
from ireu_cli.errors import ConfigError
from ireu_cli.params import Config

ROOT = Path(__file__).parent.parent


def test_precedence_and_sources(tmp_path: Path) -> None:
    file = tmp_path / "ireu.toml"
    file.write_text("seed = 1\n[unlearn]\nalpha = 1.0\nforget_weight = 1.0\nlearning_rate = 1.0\n")
    environment = {"IREU_UNLEARN__FORGET_WEIGHT": "2", "IREU_UNLEARN__LEARNING_RATE": "2"}
    resolved = load_config(file, environment, {"unlearn.learning_rate": 3.0, "unlearn.batch": None})
    unlearn = resolved.config.unlearn
    assert (resolved.config.seed, unlearn.alpha, unlearn.forget_weight, unlearn.learning_rate, unlearn.batch) == (
        1,
        1,
        2,
        3,
        "auto",
    )
    keys = ("seed", "unlearn.alpha", "unlearn.forget_weight", "unlearn.learning_rate", "unlearn.batch")
    assert [resolved.sources[key] for key in keys] == ["file", "file", "environment", "flag", "default"]


def test_manifest_gives_way_to_flags_only(tmp_path: Path) -> None:
    resolved = load_config(None, {"IREU_UNLEARN__BATCH": "9"}, {"unlearn.alpha": 7}, cwd=tmp_path)
    merged = inherit(resolved, {"seed": 5, "unlearn": {"alpha": 8, "batch": 2}, "data": {"targets": None}})
    assert (merged.config.seed, merged.config.unlearn.alpha, merged.config.unlearn.batch) == (5, 7, 2)
    assert merged.sources["unlearn.batch"] == "manifest"
    assert merged.sources["unlearn.alpha"] == "flag"
    assert merged.sources["data.targets"] == "default"


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("sed = 1\n[unlearn]\nalhpa = 1\nbatch = 0\nsteps = 'many'\n[locate]\ntop_fraction = 2\n")
    with pytest.raises(ConfigError) as error:
        load_config(file, {"IREU_ENCODER__TAPP": "x"}, {"data.faces": "maybe"})
    text = str(error.value)
    for part in (
        "sed (file): unknown key",
        "unlearn.alhpa (file): unknown key",
        "unlearn.batch (file)",
        "unlearn.steps (file)",
        "locate.top_fraction (file)",
        "encoder.tapp (environment): unknown key",
        "data.faces (flag)",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("unlearn.alhpa", "did you mean unlearn.alpha?"),
        ("unlearn.top_fraction", "did you mean locate.top_fraction?"),
        ("tap", "did you mean encoder.tap?"),
    ],
)
def test_an_unknown_key_names_the_one_probably_meant(tmp_path: Path, key: str, advice: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, {}, {key: "1"}, cwd=tmp_path)
    assert advice in str(error.value)


def test_an_unknown_key_like_no_other_gets_no_advice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, {}, {"unlearn.quite_another_thing": "1"}, cwd=tmp_path)
    assert "did you mean" not in str(error.value)


def test_missing_explicit_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "none.toml", {}, {})
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(None, {"IREU_CONFIG": str(tmp_path / "none.toml")}, {})
    assert load_config(None, {}, {}, cwd=tmp_path).config == Config()


@pytest.mark.parametrize("content", [b"seed = ", b"\xff\xfe\x00", b"encoder = 5\n", b"[encoder.source]\nx = 1\n"])
def test_broken_files(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "ireu.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError):
        load_config(None, {}, {}, cwd=tmp_path)


def test_data_variable_is_not_configuration(tmp_path: Path) -> None:
    assert load_config(None, {"IREU_DATA": "/somewhere"}, {}, cwd=tmp_path).config == Config()


def test_landmarks_in_pixels_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.landmarks"):
        load_config(None, {}, {"data.landmarks": "60,69,102,68,82,95,63,115,100,114"})


def test_landmarks_from_one_string() -> None:
    text = ",".join(["0.5"] * 10)
    assert load_config(None, {}, {"data.landmarks": text}).config.data.landmarks == (0.5,) * 10


def test_example_is_generated_from_the_schema() -> None:
    assert (ROOT / "ireu.toml.example").read_text() == example_toml(), "run: python scripts/update_docs.py"


def test_example_loads_to_the_defaults_when_uncommented() -> None:
    lines = []
    for line in example_toml().splitlines():
        body = line.removeprefix("# ")
        is_setting = line.startswith("# ") and "=" in body and body.split(" = ")[0].isidentifier()
        if line.startswith("[") or (is_setting and "# unset by default" not in line):
            lines.append(body)
    parsed = tomli.loads("\n".join(lines))
    assert Config.model_validate(parsed) == Config()
    assert {key.split(".")[0] for key in schema_keys()} == set(parsed)
