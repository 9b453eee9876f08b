"""Flag > manifest > environment > file > default; every mistake at once; the example is the schema."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import tomli
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ireu_cli.config import example_toml, inherit, load_config, places_in, schema_keys, variable_of
from ireu_cli.errors import ConfigError
from ireu_cli.params import Config
from tests.conftest import run_ireu

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


PLACES = places_in(Config)


def test_everything_that_is_a_path_is_known_as_one() -> None:
    """A path is refused when it is empty: it would be the working folder."""
    held = [key for key, value in flat(Config.model_fields).items() if "Path" in value]
    assert set(held) | {"encoder.source"} == set(PLACES)
    assert len(PLACES) >= 9


def flat(fields: Mapping[str, FieldInfo], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, field in fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= flat(field.annotation.model_fields, f"{name}.")
        else:
            found[prefix + name] = str(field.annotation)
    return found


@pytest.mark.parametrize("key", PLACES)
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_path_is_refused_wherever_it_comes_from(tmp_path: Path, key: str, empty: str) -> None:
    section, _, name = key.partition(".")
    file = tmp_path / "ireu.toml"
    file.write_text(f'[{section}]\n{name} = "{empty}"\n')
    with pytest.raises(ConfigError, match=rf"{key} is empty \(file\)"):
        load_config(file, {}, {})
    with pytest.raises(ConfigError, match=rf"IREU_{section}__{name} is empty".upper().replace("IS EMPTY", "is empty")):
        load_config(None, {f"IREU_{section}__{name}".upper(): empty}, {}, cwd=tmp_path / "none")
    with pytest.raises(ConfigError, match=rf"{key} is empty \(flag\)"):
        load_config(None, {}, {key: empty}, cwd=tmp_path / "none")


def test_the_path_of_a_recogniser_is_refused_too() -> None:
    with pytest.raises(ConfigError, match="is empty"):
        load_config(None, {"IREU_JUDGES__RECOGNISERS": '[{"name": "a", "model": ""}]'}, {})


@pytest.mark.parametrize("key", [key for key in schema_keys() if key not in PLACES])
def test_any_other_empty_variable_is_not_set(tmp_path: Path, key: str) -> None:
    resolved = load_config(None, {variable_of(key): ""}, {}, cwd=tmp_path)
    assert resolved.config == Config()
    assert resolved.sources[key] == "default"


def test_an_empty_name_of_the_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="IREU_CONFIG is empty"):
        load_config(None, {"IREU_CONFIG": ""}, {}, cwd=tmp_path)


def test_an_empty_text_in_the_file_is_unset(tmp_path: Path) -> None:
    (tmp_path / "ireu.toml").write_text('[encoder]\nrevision = ""\n')
    assert load_config(None, {}, {}, cwd=tmp_path).config.encoder.revision is None


def test_the_example_has_no_empty_value_to_uncomment() -> None:
    lines = [line for line in example_toml().splitlines() if "# unset by default" in line]
    assert len(lines) > 15
    for line in lines:
        key, value = next(iter(tomli.loads(line.removeprefix("# ")).items()))
        assert value not in ("", []), key


def test_every_line_of_the_example_can_be_uncommented() -> None:
    lines = []
    for line in example_toml().splitlines():
        body = line.removeprefix("# ")
        is_setting = line.startswith("# ") and "=" in body and body.split(" = ")[0].isidentifier()
        lines += [body] if is_setting or line.startswith("[") else []
    config = Config.model_validate(tomli.loads("\n".join(lines)))
    assert config.data.targets == Path("path/to/faces")
    assert config.record.case_id


KUBERNETES = {
    "IREU_SERVICE_HOST": "10.96.7.11",
    "IREU_SERVICE_PORT": "80",
    "IREU_PORT": "tcp://10.96.7.11:80",
    "IREU_PORT_80_TCP": "tcp://10.96.7.11:80",
    "IREU_PORT_80_TCP_PROTO": "tcp",
    "IREU_DATA_PORT": "tcp://10.96.7.12:80",
    "IREU_DATA_SERVICE_HOST": "10.96.7.12",
    "IREU_IMAGE": "registry.local/ireu:1.2",
    "IREU_RUN": "x",
    "IREU_JOB__SEED": "4",
}


def test_variables_of_others_are_passed_over_by_name(tmp_path: Path) -> None:
    resolved = load_config(None, KUBERNETES | {"IREU_SEED": "7", "IREU_LOCATE__METHOD": "all"}, {}, cwd=tmp_path)
    assert resolved.passed_over == tuple(sorted(KUBERNETES))
    assert (resolved.config.seed, resolved.config.locate.method) == (7, "all")


def test_a_wrong_key_of_a_section_is_a_mistake_and_its_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, {"IREU_LOCATE__METHDO": "all", "IREU_RUN__BATCH_SIZE": "many"}, {}, cwd=tmp_path)
    assert "IREU_LOCATE__METHDO" in str(error.value)
    assert "IREU_RUN__BATCH_SIZE" in str(error.value)


def test_settings_may_begin_with_a_mark_and_end_lines_as_windows_does(tmp_path: Path) -> None:
    (tmp_path / "ireu.toml").write_bytes(b'\xef\xbb\xbfseed = 3\r\n[locate]\r\nmethod = "all"\r\n')
    config = load_config(None, {}, {}, cwd=tmp_path).config
    assert (config.seed, config.locate.method) == (3, "all")


def test_settings_are_read_within_bounds(tmp_path: Path) -> None:
    file = tmp_path / "ireu.toml"
    for content in (b"# " + b"x" * (1 << 21), b"a = " + b"[" * 100_000):
        file.write_bytes(content)
        with pytest.raises(ConfigError):
            load_config(file, {}, {})
    with pytest.raises(ConfigError, match="list of tables"):
        load_config(None, {}, {"judges.recognisers": "[" * 100_000}, cwd=tmp_path / "none")


@pytest.mark.parametrize("given", ["3", '["gated"]', '"nobody"'])
def test_a_method_that_is_none_is_told_which_there_are(given: str, tmp_path: Path) -> None:
    (tmp_path / "ireu.toml").write_text(f"[unlearn]\nmethod = {given}\n")
    found = run_ireu("locate", cwd=tmp_path)
    assert (found.code, "'ireu', 'global', 'gated' or 'block'" in found.err) == (3, True), found.err
