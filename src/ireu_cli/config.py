"""Flag > manifest of the input > environment > file > default, every value with its source, every mistake at once."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomli
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from ireu_cli.errors import ConfigError
from ireu_cli.params import Config

Source = Literal["flag", "environment", "file", "manifest", "default"]
DEFAULT_FILE = Path("ireu.toml")
ENV_PREFIX = "IREU_"
# Set for tests and benchmarks (IREU_DATA) or read elsewhere; not part of the schema.
_ENV_APART = frozenset({"IREU_CONFIG", "IREU_DATA"})


@dataclass(frozen=True)
class Resolved:
    """A validated configuration and, for each dotted key, where its value came from."""

    config: Config
    sources: Mapping[str, Source]


def load_config(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any], *, cwd: Path = Path()
) -> Resolved:
    """Resolve the configuration.

    Args:
        file: an explicit `--config`, which must exist; None means `ireu.toml` in `cwd` if there is one.
        environment: `IREU_SEED`, `IREU_<SECTION>__<KEY>`.
        flags: dotted keys to values; None stands for "not given".
        cwd: where `ireu.toml` is looked for.

    Raises:
        ConfigError: naming every unknown key and every bad value, with its source.
    """
    layers: list[tuple[Source, dict[str, Any]]] = [
        ("file", _flatten(_read_file(file, environment, cwd))),
        ("environment", _from_environment(environment)),
        ("flag", {key: value for key, value in flags.items() if value is not None}),
    ]
    values: dict[str, Any] = {}
    sources: dict[str, Source] = dict.fromkeys(schema_keys(), "default")
    for source, layer in layers:
        for key, value in layer.items():
            values[key] = value
            sources[key] = source
    if spoiled := [key for key, value in values.items() if "\0" in str(value)]:
        raise ConfigError(f"{spoiled[0]} holds a null character", "Remove it")
    # Paths may be any bytes; what is stated goes into records, which are text.
    if spoiled := [key for key, value in values.items() if key.startswith("record.") and not _is_text(value)]:
        raise ConfigError(f"{spoiled[0]} holds bytes that are no text in UTF-8", "Write it in UTF-8")
    try:
        return Resolved(Config.model_validate(_nest(values)), sources)
    except ValidationError as error:
        raise ConfigError(_all_mistakes(error, sources), "Compare with ireu.toml.example and try again") from None


def _is_text(value: Any) -> bool:
    parts = value if isinstance(value, list | tuple) else [value]
    try:
        "".join(map(str, parts)).encode()
    except UnicodeEncodeError:
        return False
    return True


def inherit(resolved: Resolved, earlier: Mapping[str, Any], source: Source = "manifest") -> Resolved:
    """Take from an earlier step every value that no flag sets.

    The artifact handed in was made with these values, whatever environment and file say by now; steps of one chain
    must agree on them.

    Args:
        resolved: what flags, environment and file say.
        earlier: sections and keys as in `ireu.toml`; None stands for "not known".
        source: recorded as the origin of what is taken.

    Raises:
        ConfigError: an earlier value is not valid.
    """
    values = _flatten(resolved.config.model_dump())
    sources = dict(resolved.sources)
    for key, value in _flatten(earlier).items():
        if sources.get(key, "flag") != "flag" and value is not None:
            values[key] = value
            sources[key] = source
    try:
        return Resolved(Config.model_validate(_nest(values)), sources)
    except ValidationError as error:
        raise ConfigError(_all_mistakes(error, sources), "Use the version of ireu that wrote the manifest") from None


def without(resolved: Resolved, section: str, key: str) -> Resolved:
    """Take back a value that may be left out, wherever it came from."""
    part = getattr(resolved.config, section).model_copy(update={key: None})
    return Resolved(resolved.config.model_copy(update={section: part}), resolved.sources)


def schema_keys() -> list[str]:
    """Every dotted key of the schema, in the order of the schema."""
    return list(_flatten(Config().model_dump()))


def example_toml() -> str:
    """The text of `ireu.toml.example`: every key with its default and its description, commented out."""
    lines = [
        "# Every key of ireu.toml with its default. Uncomment what you change.",
        "# Precedence: flag > manifest of the input > IREU_* > this file.",
    ]
    top = [name for name, field in Config.model_fields.items() if not _is_section(field.annotation)]
    lines += [""] + [line for name in top for line in _example_entry(Config, name)]
    for name, field in Config.model_fields.items():
        if (section := _is_section(field.annotation)) is not None:
            lines += ["", f"[{name}]"]
            lines += [line for key in section.model_fields for line in _example_entry(section, key)]
    return "\n".join(lines) + "\n"


def _example_entry(model: type[BaseModel], key: str) -> list[str]:
    field = model.model_fields[key]
    default = field.default if field.default is not PydanticUndefined else None
    value = '""' if default is None else _toml_value(default)
    unset = "  # unset by default" if default is None else ""
    return [f"# {field.description}", f"# {key} = {value}{unset}"]


def _toml_value(value: Any) -> str:
    if isinstance(value, float) and "e" in repr(value):
        return f"{value:.1e}".replace("e-0", "e-")
    return json.dumps(str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value)


def _is_section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def settings_file(file: Path | None, environment: Mapping[str, str], cwd: Path = Path()) -> Path | None:
    """The file that settings are read from: an explicit one, or `ireu.toml` where there is one."""
    if file or environment.get("IREU_CONFIG"):
        return file or Path(environment["IREU_CONFIG"])
    return cwd / DEFAULT_FILE if (cwd / DEFAULT_FILE).exists() else None


def _read_file(file: Path | None, environment: Mapping[str, str], cwd: Path) -> dict[str, Any]:
    path = settings_file(file, environment, cwd)
    if path is None:
        return {}
    try:
        return tomli.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"The configuration file {path} does not exist", "Correct --config, or leave it out"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The configuration file {path} cannot be read ({type(error).__name__})",
            "Make it a readable UTF-8 text file",
        ) from None
    except RecursionError:
        raise ConfigError(f"The configuration file {path} is nested too deeply", "See ireu.toml.example") from None
    except tomli.TOMLDecodeError as error:
        raise ConfigError(f"The configuration file {path} is not TOML: {error}", "Correct that line") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    names = [name for name in environment if name.startswith(ENV_PREFIX) and name not in _ENV_APART]
    return {name.removeprefix(ENV_PREFIX).lower().replace("__", ".", 1): environment[name] for name in sorted(names)}


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        section, _, name = key.rpartition(".")
        if not section:
            tree[name] = value
        elif isinstance(branch := tree.setdefault(section, {}), dict):
            branch[name] = value
    return tree


def _all_mistakes(error: ValidationError, sources: Mapping[str, Source]) -> str:
    parts = []
    for item in error.errors(include_url=False, include_context=False):
        key = ".".join(str(part) for part in item["loc"][:2])
        source = sources.get(key) or sources.get(".".join(str(part) for part in item["loc"]), "file")
        unknown = item["type"] == "extra_forbidden"
        what = f"unknown key{_near(key)}" if unknown else item["msg"][0].lower() + item["msg"][1:]
        parts.append(f"{key} ({source}): {what}")
    return "The configuration has mistakes: " + "; ".join(dict.fromkeys(parts))


def _near(key: str) -> str:
    """Name the key that was probably meant: one of the same name elsewhere, else one that is spelt alike."""
    known = schema_keys()
    same = [other for other in known if other.rpartition(".")[2] == key.rpartition(".")[2]]
    alike = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    return f", did you mean {(same or alike)[0]}?" if same or alike else ""
