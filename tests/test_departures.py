"""A verdict says what it was asked: settings that are not the default, and what it does not rest on."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ireu_cli.cli.output import Terminal
from ireu_cli.config import load_config, schema_keys
from ireu_cli.errors import ConfigError
from ireu_cli.report import Departure, rounded
from ireu_cli.report_page import page
from ireu_cli.verifying.departures import ORDERS, SECTIONS, departures_of, refuse_weaker
from ireu_cli.verifying.reporting.standing import standing
from tests.conftest import run_ireu
from tests.sample_report import sample
from tests.test_trust import other


@dataclasses.dataclass
class Settings:
    """As much of a session as settings are read from."""

    config: Any
    sources: Any


def departures(**flags: Any) -> tuple[Departure, ...]:
    resolved = load_config(None, {}, {key.replace("__", "."): value for key, value in flags.items()}, cwd=Path("/none"))
    return departures_of(Settings(resolved.config, resolved.sources))  # type: ignore[arg-type]


def test_every_setting_of_a_verdict_has_an_order() -> None:
    keys = {key for key in schema_keys() if key.partition(".")[0] in SECTIONS}
    assert set(ORDERS) - keys == {"data.bad_photos", "seed"}
    assert keys <= set(ORDERS)


@pytest.mark.parametrize("key", sorted(ORDERS))
def test_every_setting_that_is_not_the_default_is_told(key: str) -> None:
    plain = load_config(None, {}, {}, cwd=Path("/none")).config.model_dump(mode="json")
    section, _, name = key.partition(".")
    value = other(key, plain[section][name] if name else plain[section])
    if key in {"pictures.generators", "attacks.suite", "pictures.edits"}:
        value = ["A"] if "generators" in key else ["flip"] if "suite" in key else ["dark"]
    found = departures(**{key: value})
    if ORDERS[key] == "shown only":
        assert not found
        return
    assert [(one.key, one.source) for one in found] == [(key, "flag")]
    assert found[0].value != found[0].default


def test_no_departure_from_the_defaults() -> None:
    assert not departures()
    assert not departures(verify__max_match_unseen=0.1)


@pytest.mark.parametrize(
    ("key", "value", "effect"),
    [
        ("verify.max_match_unseen", 0.6, "weaker"),
        ("verify.max_match_unseen", 0.05, "stronger"),
        ("verify.min_retained_ssim", 0.5, "weaker"),
        ("verify.min_retained_ssim", 0.9, "stronger"),
        ("verify.false_match_rate", 0.001, "weaker"),
        ("verify.require_unseen", False, "weaker"),
        ("verify.bootstrap", 200, "no order"),
        ("pictures.generators", "none", "weaker"),
        ("pictures.generators", "A", "weaker"),
        ("pictures.edits", "dark", "weaker"),
        ("pictures.people", 60, "stronger"),
        ("attacks.suite", "none", "weaker"),
        ("attacks.drawn", 0, "weaker"),
        ("judges.embedded", False, "weaker"),
        ("judges.min_recognisers", 1, "weaker"),
        ("judges.recognisers", [{"name": "x", "model": "/home/me/x.onnx"}], "stronger"),
        ("data.bad_photos", "skip", "weaker"),
    ],
)
def test_weaker_and_stronger(key: str, value: Any, effect: str) -> None:
    (found,) = departures(**{key: value})
    assert found.effect == effect
    assert "/home" not in found.model_dump_json()
    if effect == "weaker":
        with pytest.raises(ConfigError, match=key):
            refuse_weaker((found,))
    else:
        refuse_weaker((found,))


COUNTED = {key for key, order in ORDERS.items() if order in {"less is weaker", "more is weaker"}}
"""Settings of which more or less is asked."""
NAMED = {key for key in schema_keys() if key.partition(".")[0] in SECTIONS and re.search(r"\.(min|max)_", key)}
ENOUGH = {f"attacks.{name}" for name in ("people", "photos", "drawn", "seeds")}
ENOUGH |= {f"attacks.{name}" for name in ("pgd_steps", "generator_steps", "relearn_steps", "relearn_photos")}
ENOUGH |= {f"pictures.{name}" for name in ("target_photos", "people", "look_alikes", "photos", "seeds")}
ENOUGH |= {"pictures.edits_per_photo", "verify.false_match_rate"}
"""Numbers without `min` or `max` in their name of which less is weaker: what is looked at and tried."""


def test_every_limit_has_a_direction() -> None:
    assert NAMED | ENOUGH < COUNTED
    others = {"verify.require_unseen", "judges.embedded", "judges.recognisers", "pictures.edits"}
    assert others == COUNTED - NAMED - ENOUGH


@pytest.mark.parametrize("key", sorted(NAMED | ENOUGH))
def test_the_direction_of_every_limit(key: str) -> None:
    """By what their names say, and not by the table that is tested."""
    section, _, name = key.partition(".")
    usual = load_config(None, {}, {}, cwd=Path("/none")).config.model_dump(mode="json")[section][name]
    lower, higher = (usual - 1, usual + 1) if isinstance(usual, int) else (usual * 0.75, usual * 1.04)
    less, more = ("stronger", "weaker") if name.startswith("max_") else ("weaker", "stronger")
    found = []
    for value in (lower, higher):
        try:
            found += [(value, one.effect) for one in departures(**{key: value})]
        except ConfigError:
            # Some cannot be any lower.
            assert value == lower
    assert found in ([(lower, less), (higher, more)], [(higher, more)])
    assert len(found) == 2 or usual == 1


WEAK = Departure(key="verify.max_match_unseen", value=0.6, default=0.1, source="environment", effect="weaker")

OTHERS = [
    WEAK.model_copy(update={"value": 0.05, "effect": "stronger"}),
    Departure(key="verify.bootstrap", value=200, default=1000, source="flag", effect="no order"),
]
"""What asks no less."""


@pytest.mark.parametrize(
    ("drawn", "covered", "attacked", "given", "words", "gaps"),
    [
        (["A"], ["A"], [None, "A"], [], "passed", ()),
        (["A"], ["A"], [None, "A"], OTHERS, "passed", ()),
        ([], [], [None], [], "passed on features alone", ("pictures",)),
        ([], ["A"], [], [], "passed on features alone, without attacks", ("pictures", "attacks")),
        (["A"], ["A", "B"], [None, "A"], [],
         "passed without pictures of generator B, which the edit reaches", ("generator B",)),
        (["A"], ["A"], [None], [], "passed with no attack on pictures of generator A", ("attacks on generator A",)),
        (["A"], ["A"], [None, "A"], [WEAK], "passed with settings weaker than the defaults", ("default limits",)),
    ],
)  # fmt: skip
def test_what_a_pass_is_called(
    drawn: list[str], covered: list[str], attacked: list[str | None], given: list[Departure], words: str, gaps: Any
) -> None:
    assert standing("pass", drawn, covered, attacked, given) == (words, gaps)


def test_the_page_does_not_show_a_qualified_pass_as_a_pass() -> None:
    plain = sample("pass")
    assert 'class="verdict pass"' in page(plain)
    words, gaps = standing("pass", [], [], [], [WEAK])
    told = page(plain.model_copy(update={"standing": words, "gaps": gaps, "departures": (WEAK,)}))
    assert 'class="verdict pass"' not in told
    top = told[: told.index("<section")]
    for part in ("on features alone, without attacks, with settings weaker", "max_", "0.6", "0.1", "environment"):
        assert part in top, part
    assert "weaker than the default" in top


def test_numbers_are_not_rounded_to_what_they_are_not() -> None:
    assert [rounded(value) for value in (0, 1, 0.9999, 0.00004, -0.00004, 0.1234567)] == [
        "0.000", "1.000", "0.9999", "0.00004", "-0.00004", "0.123",
    ]  # fmt: skip
    assert rounded(0.09996, 3, 0.1) == "0.09996"


LOW = {
    "IREU_VERIFY__MAX_MATCH_UNSEEN": "1",
    "IREU_VERIFY__MAX_MATCH_SEEN": "1",
    "IREU_ATTACKS__SUITE": "none",
    "IREU_PICTURES__GENERATORS": "none",
}


def test_lowered_limits_stand_beside_the_verdict(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LOW.items():
        monkeypatch.setenv(name, value)
    verify = ("verify", "--delta", "delta.safetensors", "-o", "low", "--json")
    refused = run_ireu(*verify, "--strict", cwd=fresh)
    assert refused.code == 3
    assert "verify.max_match_unseen = 1.0 (environment; default 0.1)" in refused.err
    assert "attacks.suite = none (environment; default all)" in refused.err
    assert not (fresh / "low").exists()
    found = run_ireu(*verify, cwd=fresh)
    report = found.json["report"]
    told = {one["key"]: (one["value"], one["default"], one["source"], one["effect"]) for one in report["departures"]}
    assert told["verify.max_match_unseen"] == (1.0, 0.1, "environment", "weaker")
    assert told["attacks.suite"] == (["none"], ["all"], "environment", "weaker")
    assert set(report["gaps"]) == {"pictures", "attacks", "default limits"}
    assert "on features alone, without attacks, with settings weaker than the defaults: " in found.err
    assert "  verify.max_match_unseen = 1.0 (environment; default 0.1, weaker)" in found.err
    html = (fresh / "low" / "report.html").read_text()
    assert html.index("max_match_") < html.index("<section")
    assert json.loads((fresh / "low" / "manifest.json").read_text())["metrics"]["standing"] == report["standing"]


def test_strict_refuses_a_report_that_is_there_already(fresh: Path) -> None:
    verify = ("verify", "--delta", "delta.safetensors", "-o", "low", "--set", "verify.max_null_change=0.5")
    assert run_ireu(*verify, cwd=fresh).code in {0, 4}
    assert run_ireu(*verify, "--strict", cwd=fresh).code == 3


def test_inconclusive_shows_what_is_missing_and_not_what_passed(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal(quiet=False, verbose=False).report(sample("inconclusive"))
    lines = capsys.readouterr().err.splitlines()[1:]
    unmet = [control for control in sample("inconclusive").controls if not control.met]
    assert unmet
    assert sum(line.strip().startswith("not met") for line in lines) == len(unmet)
    assert not [line for line in lines if line.strip().startswith("pass")]
    Terminal(quiet=False, verbose=False).report(sample("pass"))
    assert "  pass " in capsys.readouterr().err


def test_attacks_that_may_all_win_are_not_said_to_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ireu_cli.report_page.attacks._SHOWN", 1)
    plain = sample("fail")
    free = [c.model_copy(update={"threshold": 1.0}) if c.name == "attacks" else c for c in plain.criteria]
    assert "; any success allowed" not in page(plain)
    assert "none of which wins" in page(plain)
    told = page(plain.model_copy(update={"criteria": tuple(free)}))
    assert "; any success allowed" in told
    assert "none of which wins" not in told
