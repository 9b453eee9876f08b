"""Resolve settings: flag > manifest of the input > environment > file > default. Each value keeps its source."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import tomli
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from ireu_cli.errors import ConfigError
from ireu_cli.params import Config, Source
from ireu_cli.params.base import PLACE
from ireu_cli.support.bounded import printable

DEFAULT_FILE = Path("ireu.toml")
ENV_PREFIX = "IREU_"
# Set for tests and benchmarks (IREU_DATA) or read elsewhere; not part of the schema.
CONFIG_VARIABLE = "IREU_CONFIG"
_ENV_APART = frozenset({CONFIG_VARIABLE, "IREU_DATA"})
_MOST_MISTAKES = 40
"""The most mistakes that one message lists."""
_SHOWN = 80
"""The most characters of a key that a message shows; the longest valid key has half as many."""
_MOST_TOML = 1 << 20
"""The most bytes of a settings file."""


@dataclass(frozen=True)
class Resolved:
    """A validated configuration and, for each dotted key, where its value came from.

    `passed_over` names variables that begin like ours but are not settings, such as those that Kubernetes sets in every
    container; `file` is the settings file that was read.
    """

    config: Config
    sources: Mapping[str, Source]
    passed_over: tuple[str, ...] = ()
    file: Path | None = None


def load_config(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any], *, cwd: Path = Path()
) -> Resolved:
    """Resolve the configuration.

    Args:
        file: an explicit `--config`, which must exist; None means `ireu.toml` in `cwd` if there is one.
        environment: `IREU_SEED`, `IREU_<SECTION>__<KEY>`; an empty one counts as not set; for a file or a folder, an
            empty one is a mistake.
        flags: dotted keys to values; None means "not given".
        cwd: the folder in which `ireu.toml` is looked for.

    Raises:
        ConfigError: there are unknown keys or bad values; it names each one with its source.
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
    # Paths may be any bytes, but other settings go into records, which are text.
    if spoiled := [key for key, value in values.items() if key.startswith("record.") and not _is_text(value)]:
        raise ConfigError(f"{spoiled[0]} holds bytes that are not UTF-8 text", "Write it in UTF-8")
    try:
        config = Config.model_validate(_nest(values))
    except ValidationError as error:
        raise ConfigError(_all_mistakes(error, sources), "Compare with ireu.toml.example and try again") from None
    return Resolved(config, sources, _passed_over(environment), settings_file(file, environment, cwd))


def _is_text(value: Any) -> bool:
    parts = value if isinstance(value, list | tuple) else [value]
    try:
        "".join(map(str, parts)).encode()
    except UnicodeEncodeError:
        return False
    return True


def inherit(resolved: Resolved, earlier: Mapping[str, Any], source: Source = "manifest") -> Resolved:
    """Take every value that no flag sets from an earlier step.

    The input artifact was made with these values, whatever environment and file say now; steps of one chain must agree
    on them.

    Args:
        resolved: the values of flags, environment and file.
        earlier: sections and keys as in `ireu.toml`; None means "not known".
        source: recorded as the source of the values taken.

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
        return replace(resolved, config=Config.model_validate(_nest(values)), sources=sources)
    except ValidationError as error:
        raise ConfigError(_all_mistakes(error, sources), "Use the version of ireu that wrote the manifest") from None


def refuse_missing(resolved: Resolved, keys: Sequence[str], working_folder: Path) -> None:
    """Refuse folders that do not exist, before any work is done.

    Args:
        resolved: the configuration.
        keys: dotted keys of folders.
        working_folder: where relative paths begin, including those in a settings file that lies elsewhere.

    Raises:
        ConfigError: a folder does not exist; it names the path and where it was set.
    """
    for key in keys:
        section, _, name = key.partition(".")
        path = getattr(getattr(resolved.config, section), name)
        if path is None or (working_folder / path).exists():
            continue
        source = resolved.sources[key]
        where = {
            "flag": f"given by --{name}",
            "environment": f"set by {variable_of(key)}",
            "file": f"set as {key} in {resolved.file}",
        }.get(source, source)
        raise ConfigError(
            f"{path}, {where}, does not exist",
            "Correct the path" if path.is_absolute() else f"Correct the path: it is relative to {working_folder}",
        )


def without(resolved: Resolved, section: str, key: str) -> Resolved:
    """Remove an optional value, wherever it came from."""
    part = getattr(resolved.config, section).model_copy(update={key: None})
    return replace(resolved, config=resolved.config.model_copy(update={section: part}))


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
    # For a path, an empty text would mean the working folder.
    value = _toml_value((field.examples or [""])[0] if default is None else default)
    unset = "  # unset by default" if default is None else ""
    return [f"# {field.description}", f"# {key} = {value}{unset}"]


def _toml_value(value: Any) -> str:
    if isinstance(value, float) and "e" in repr(value):
        return f"{value:.1e}".replace("e-0", "e-")
    return json.dumps(str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value)


def _is_section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def settings_file(file: Path | None, environment: Mapping[str, str], cwd: Path = Path()) -> Path | None:
    """The file that settings are read from: an explicit one, or `ireu.toml` if it exists.

    Raises:
        ConfigError: the variable that names it is empty.
    """
    if file is not None:
        return file
    if (named := environment.get(CONFIG_VARIABLE)) is not None:
        if not named.strip():
            raise ConfigError(f"{CONFIG_VARIABLE} is empty", "Name a settings file, or unset the variable")
        return Path(named)
    return cwd / DEFAULT_FILE if (cwd / DEFAULT_FILE).exists() else None


def _read_file(file: Path | None, environment: Mapping[str, str], cwd: Path) -> dict[str, Any]:
    path = settings_file(file, environment, cwd)
    if path is None:
        return {}
    try:
        # Editors on Windows start a file with a byte order mark.
        return tomli.loads(_settings_bytes(path).decode("utf-8-sig"))
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


def _settings_bytes(path: Path) -> bytes:
    """The content of a settings file, which may be a pipe."""
    with path.open("rb") as file:
        data = file.read(_MOST_TOML + 1)
    if len(data) > _MOST_TOML:
        raise ConfigError(f"The configuration file {path} is larger than 1 MB", "See ireu.toml.example")
    return data


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings in variables. An empty variable is not set, unless it names a path: validation refuses that."""
    places = set(places_in(Config))
    found = {key: environment[name] for name in sorted(environment) if (key := _key_of(name)) is not None}
    return {key: value for key, value in found.items() if value.strip() or key in places}


def _key_of(variable: str) -> str | None:
    """The key that a variable sets: one of the top, or one of a section, `IREU_<SECTION>__<KEY>`; else None."""
    if not variable.startswith(ENV_PREFIX) or variable in _ENV_APART:
        return None
    section, marks, key = variable.removeprefix(ENV_PREFIX).lower().partition("__")
    field = Config.model_fields.get(section)
    if field is None or (_is_section(field.annotation) is not None) != bool(marks):
        return None
    return f"{section}.{key}" if marks else section


def _passed_over(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Variables that begin like ours but set nothing."""
    ours = (name for name in environment if name.startswith(ENV_PREFIX) and name not in _ENV_APART)
    return tuple(sorted(name for name in ours if _key_of(name) is None))


def places_in(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key that names a file or a folder."""
    found = []
    for name, field in model.model_fields.items():
        if (section := _is_section(field.annotation)) is not None:
            found += places_in(section, f"{prefix}{name}.")
        elif PLACE in field.metadata or PLACE in get_args(field.annotation):
            found.append(f"{prefix}{name}")
    return found


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
        words = item["msg"].removeprefix("Value error, ")
        what = f"unknown key{_near(key)}" if unknown else words[0].lower() + words[1:]
        if what == "is empty":
            parts.append(f"{variable_of(key) if source == 'environment' else key} is empty ({source})")
            continue
        variable = f", set by {variable_of(key)}" if source == "environment" else ""
        parts.append(f"{printable(key, _SHOWN)} ({source}): {what}{variable}")
    told = list(dict.fromkeys(parts))
    rest = [f"and {len(told) - _MOST_MISTAKES} more"] if len(told) > _MOST_MISTAKES else []
    return "The configuration has mistakes: " + "; ".join([*told[:_MOST_MISTAKES], *rest])


def variable_of(key: str) -> str:
    """The variable that sets a dotted key."""
    return ENV_PREFIX + key.replace(".", "__", 1).upper()


def _near(key: str) -> str:
    """Suggest the key that was probably meant: the same name in another section, or a similar spelling."""
    known = schema_keys()
    same = [other for other in known if other.rpartition(".")[2] == key.rpartition(".")[2]]
    alike = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    return f", did you mean {(same or alike)[0]}?" if same or alike else ""
