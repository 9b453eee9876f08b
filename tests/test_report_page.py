"""The report as a page: whole, escaped, self-contained, and with every figure on it."""

from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser

import pytest

from ireu_cli.report import Curve, Figure, Kept, Outcome, Report
from ireu_cli.report_page import audit_page, page, person_page
from ireu_cli.report_page.graphs.charts import distributions, kept_charts
from ireu_cli.report_page.graphs.forest import forest
from ireu_cli.report_page.graphs.plots import Frame, ticks
from ireu_cli.report_page.rival import rival
from ireu_cli.report_page.summary import tiles
from ireu_cli.report_page.words import judged, number, rate, span
from tests.sample_report import RATE, RECOGNISERS, encoder_only, hostile, nothing_measured, sample, sample_pictures

OUTCOMES: tuple[Outcome, ...] = ("pass", "fail", "inconclusive")
EVIL = "<img src=x onerror=alert(1)>\"'&</style></title></pre><script>alert(2)</script>{}%s"
NAMES = (*OUTCOMES, "encoder", "nothing", "hostile", "hostile names")
VOID = {"img", "link", "meta", "wbr"}
STATES = ("original", "edited", "change")


@dataclass(repr=False, eq=False)
class Element:
    """An element with its text; `inside` holds its elements in order.

    It is not shown whole in a failure: that would take minutes.
    """

    tag: str
    attributes: dict[str, str]
    inside: list["Element"] = field(default_factory=list)
    parts: list["str | Element"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    def all(self, tag: str, cls: str | None = None) -> Iterator["Element"]:
        for child in self.inside:
            if child.tag == tag and (cls is None or cls in child.attributes.get("class", "").split()):
                yield child
            yield from child.all(tag, cls)

    def rows(self) -> list[list[str]]:
        return [[c.text for c in row.inside if c.tag in {"th", "td"}] for row in self.all("tr")]


class Walk(HTMLParser):
    """Builds the tree, and refuses tags that are closed in another order than they were opened in."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.stack = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.stack[-1].inside.append(element)
        self.stack[-1].parts.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack[-1].tag == tag, f"</{tag}> closes <{self.stack[-1].tag}>"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        self.stack[-1].parts.append(data)


@cache
def walk(html: str) -> Element:
    parser = Walk()
    parser.feed(html)
    parser.close()
    assert len(parser.stack) == 1, [element.tag for element in parser.stack]
    return parser.root


def part(root: Element, key: str) -> Element:
    return next(s for s in root.all("section") if s.attributes.get("aria-labelledby") == key)


def keys(root: Element) -> set[str]:
    return {s.attributes["aria-labelledby"] for s in root.all("section") if "aria-labelledby" in s.attributes}


@cache
def reports() -> dict[str, Report]:
    return {
        **{outcome: sample(outcome) for outcome in OUTCOMES},
        "encoder": encoder_only(),
        "nothing": nothing_measured(),
        "hostile": hostile(EVIL),
        "hostile names": hostile(EVIL, names=True),
    }


def _whole(report: Report) -> str:
    return page(report, sample_pictures() if report is reports()["pass"] else ())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("made", [_whole, person_page, audit_page], ids=["whole", "person", "audit"])
def test_whole_and_self_contained(name: str, made: Callable[[Report], str]) -> None:
    report = reports()[name]
    html = made(report)
    root = walk(html)
    everything = list(everyone(root))
    assert not [e for e in everything if e.tag in {"script", "iframe", "object", "embed", "form", "base"}]
    for element in everything:
        for key, value in element.attributes.items():
            assert not key.startswith("on"), f"{element.tag} {key}"
            if key in {"href", "src", "srcset", "data", "action", "poster", "xlink:href"}:
                assert value.startswith(("#", "data:")), value[:60]
    style = next(root.all("style")).text
    assert "url(" not in style
    assert "@import" not in style
    policy = [m.attributes["content"] for m in root.all("meta") if m.attributes.get("http-equiv")]
    assert policy
    assert policy[0].startswith("default-src 'none'")
    assert made(report) == html
    assert EVIL not in html


def everyone(element: Element) -> Iterator[Element]:
    for child in element.inside:
        yield child
        yield from everyone(child)


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    root = walk(page(reports()[name]))
    ids = [e.attributes["id"] for e in everyone(root) if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    targets = [a.attributes["href"].removeprefix("#") for a in root.all("a")]
    assert set(targets) == keys(root) <= set(ids)


@pytest.mark.parametrize("names", [False, True])
def test_hostile_names_are_text(names: bool) -> None:
    html = page(hostile(EVIL, names=names), [(EVIL, EVIL, b"no picture")])
    assert EVIL not in html
    assert "<img src=x" not in html
    root = walk(html)
    assert len(list(root.all("img"))) == 1
    assert EVIL in root.text
    for key in ("criteria", "controls", "figures", "recognisers", "limits", "record", "provenance"):
        assert EVIL in part(root, key).text, key


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_outcome_stands_on_top(outcome: Outcome) -> None:
    report = sample(outcome)
    root = walk(page(report))
    verdict = next(root.all("div", "verdict"))
    heading = next(verdict.all("h1"))
    assert heading.text.endswith(outcome.capitalize())
    assert list(heading.all("svg")), "told by colour alone"
    assert report.reason in verdict.text
    assert report.summary is not None
    assert report.summary in verdict.text
    assert [item.text for step in root.all("ol") for item in step.all("li")][: len(report.next_steps)] == [
        *report.next_steps
    ]
    assert next(root.all("title")).text.endswith(outcome)
    passed = sum(c.outcome == "pass" for c in report.criteria)
    assert f"{passed} of {len(report.criteria)} criteria met" in verdict.text


def condition(figure: Figure) -> str:
    parts = (("edit", figure.edit), ("attack", figure.attack), ("group", figure.group))
    return "; ".join(f"{word}: {value}" for word, value in parts if value is not None)


def shown(figure: Figure) -> str:
    interval = span(figure)
    return number(figure.value, figure.unit) + ("" if interval is None else f" {interval}")


@pytest.mark.parametrize("name", ["pass", "fail", "encoder"])
def test_every_figure_is_on_the_page(name: str) -> None:
    report = reports()[name]
    rows: dict[tuple[str, ...], list[str]] = {}
    for block in part(walk(page(report)), "figures").all("details"):
        title = next(block.all("summary")).text.split(":")[0]
        rows |= {(title, *row[:5]): row for row in next(block.all("table")).rows()}
    for f in report.figures:
        title = "Encoder features" if f.generator is None else f"Generator {f.generator}"
        at = "" if f.false_match_rate is None else rate(f.false_match_rate)
        row = rows[title, f.name, f.role, condition(f), f.measure, at]
        assert row[5 + STATES.index(f.state)] == shown(f)
        assert (str(f.photos), str(f.people)) == (row[8], row[9])


def test_every_judgement_is_on_the_page() -> None:
    report = sample("fail")
    root = walk(page(report))
    for key, items in (("criteria", report.criteria), ("controls", report.controls)):
        rows = [row for row in part(root, key).rows() if len(row) == 4][1:]
        assert len(rows) == len(items)
        for item in items:
            assert any(row[0].endswith(item.name) for row in rows)
    outcomes = [row[1] for row in part(root, "criteria").rows() if len(row) == 4][1:]
    assert sorted(outcomes) == sorted(c.outcome for c in report.criteria)
    assert part(root, "controls").text.count("more than") == 2


def test_sections_without_content_vanish() -> None:
    full = keys(walk(page(sample(), sample_pictures())))
    assert full == {"pictures", "charts", "criteria", "controls", "attacks", "gate", "groups", "figures",
                    "definitions", "recognisers", "limits", "record", "provenance"}  # fmt: skip
    assert keys(walk(page(encoder_only()))) == full - {"pictures", "attacks", "gate", "groups", "recognisers"}
    bare = walk(page(nothing_measured()))
    assert keys(bare) == {"record", "provenance"}
    assert not list(bare.all("table"))
    assert part(bare, "record").text.count("not stated") == 12


def test_pictures() -> None:
    pictures = sample_pictures()
    root = walk(page(sample(), pictures))
    images = list(root.all("img"))
    sources = [b64decode(image.attributes["src"].removeprefix("data:image/png;base64,")) for image in images]
    assert sorted(sources) == sorted(png for _, _, png in pictures)
    assert all(image.attributes["alt"] for image in images)
    assert all(image.attributes["class"] == "crisp" for image in images)
    assert images[0].attributes["height"] == "400"
    assert "show people" in part(root, "pictures").text
    assert [c.text for c in part(root, "pictures").all("figcaption")][:2] == [
        "Targets, other photos",
        "Targets, used photos",
    ]
    without = walk(page(sample()))
    assert "--with-pictures" in part(without, "pictures").text
    assert not list(without.all("img"))


def test_tiles_take_the_worst_recogniser_at_the_configured_rate() -> None:
    report = sample("fail")
    wanted = [
        f for f in report.figures
        if (f.name, f.role, f.state, f.generator) == ("reidentified", "target-unseen", "edited", "A")
    ]  # fmt: skip
    worst = max(f.value for f in wanted if f.false_match_rate == RATE)
    moved = tuple(f.model_copy(update={"value": 0.99}) if f in wanted and f.false_match_rate != RATE else f
                  for f in report.figures)  # fmt: skip
    card = next(walk(tiles(report.model_copy(update={"figures": moved}))).all("section"))
    tile = next(card.all("div", "tile"))
    assert number(worst, "share") in next(tile.all("dd", "big")).text
    assert "criterion: fail" in tile.text
    assert "Worst attack, jpeg-20" in card.text
    few = tuple(f.model_copy(update={"low": None, "high": None, "photos": 3, "people": 1}) for f in report.figures)
    assert "3 pictures of 1 person, no interval" in tiles(report.model_copy(update={"figures": few}))


def test_attacks_are_sorted_and_those_that_win_are_marked() -> None:
    report = sample("fail")
    root = part(walk(page(report)), "attacks")
    blocks = list(root.all("table"))
    assert [next(table.all("caption")).text.split(":")[0] for table in blocks] == [
        "Generator A", "Generator B", "Encoder features",
    ]  # fmt: skip
    for table in blocks:
        rows = [row for row in table.all("tr") if list(row.all("td"))]
        values = [float(row.inside[1].text.split("\u00a0")[0]) for row in rows]
        assert values == sorted(values, reverse=True)
        wins = [bool(list(row.all("span", "wins"))) for row in rows]
        assert wins == [value > 25 for value in values]
        assert "The unchanged photo" in rows[-1].text
    assert root.text.count("reported, not judged") == 2
    assert "mirrored" in root.text
    weak = sample().model_copy(update={"criteria": ()})
    assert not list(part(walk(page(weak)), "attacks").all("span", "wins"))


def test_many_attacks_fold_away() -> None:
    report = sample()
    one = next(f for f in report.figures if f.name == "attack_success" and f.generator is None and f.state == "edited")

    def tables(scale: float) -> tuple[str, list[int]]:
        many = [one.model_copy(update={"attack": f"attack-{n}", "value": scale * n}) for n in range(30)]
        many.append(one.model_copy(update={"attack": "none", "value": 0.0}))
        root = part(walk(page(report.model_copy(update={"figures": tuple(many)}))), "attacks")
        assert "The unchanged photo" in next(root.all("table")).text
        return next(root.all("summary")).text, [len(table.rows()) - 1 for table in root.all("table")]

    assert tables(0.001) == ("15 weaker attacks, none of which wins", [16, 15])
    assert tables(0.0251) == ("10 weaker attacks, none of which wins", [21, 10]), "what wins is never folded away"


def duel(gate: Figure, edit: Figure, *more: Figure) -> list[list[str]]:
    report = sample().model_copy(update={"figures": (gate, edit, *more)})
    return [row for row in walk(rival(report)).rows() if len(row) == 4][1:]


@pytest.mark.parametrize(
    ("caught", "matched", "better"),
    [
        ((0.80, 0.75, 0.85), (0.05, 0.02, 0.08), "edit"),
        ((0.99, 0.98, 1.0), (0.05, 0.03, 0.08), "gate"),
        ((0.93, 0.90, 0.96), (0.05, 0.02, 0.08), "no clear difference"),
        ((0.93, None, None), (0.05, 0.02, 0.08), "edit, without intervals"),
        ((0.99, 0.98, 1.0), (0.05, None, None), "gate, without intervals"),
        ((0.95, None, None), (0.05, None, None), "equal"),
    ],
)
def test_gate_and_edit_are_compared_by_what_gets_through(
    caught: tuple[float, float | None, float | None], matched: tuple[float, float | None, float | None], better: str
) -> None:
    base = Figure(name="gate_caught", role="target-unseen", state="original", measure="face-encoder", value=caught[0],
                  low=caught[1], high=caught[2], photos=40, people=5, unit="share")  # fmt: skip
    edit = base.model_copy(
        update={"name": "reidentified", "state": "edited", "generator": "A", "value": matched[0], "low": matched[1],
                "high": matched[2]}
    )  # fmt: skip
    ((who, gate, shown_edit, found),) = duel(base, edit)
    assert "Generator A" in who
    assert gate.startswith(number(1 - caught[0], "share"))
    assert shown_edit.startswith(number(matched[0], "share"))
    assert found == better
    assert duel(base, edit.model_copy(update={"measure": "portrait-mini"})) == []


def test_attacks_on_the_gate_and_on_the_edit_are_the_same_attacks() -> None:
    """An attack that only one of the two was put to must not decide."""
    gate = Figure(name="gate_beaten", role="target-unseen", state="original", measure="face-encoder", generator="A",
                  attack="flip", value=0.3, low=0.2, high=0.4, photos=8, people=4, unit="share")  # fmt: skip
    edit = gate.model_copy(
        update={"name": "attack_success", "state": "edited", "value": 0.1, "low": 0.05, "high": 0.15}
    )
    alone = edit.model_copy(update={"attack": "generator-noise", "value": 0.9, "low": 0.8, "high": 1.0})
    ((_, _, shown_edit, better),) = duel(gate, edit, alone)
    assert shown_edit.startswith("10.0")
    assert better == "edit"


def test_the_gate_that_refuses_others_is_compared_with_what_others_lose() -> None:
    gate = Figure(name="gate_false_refusal", role="retained", state="original", measure="face-encoder", value=0.04,
                  low=0.02, high=0.06, photos=90, people=30, unit="share")  # fmt: skip
    before, after = (
        gate.model_copy(update={"name": "reidentified", "state": state, "generator": "A", "value": value})
        for state, value in (("original", 0.95), ("edited", 0.85))
    )
    ((_, _, lost, better),) = duel(gate, before, after)
    assert lost.startswith("10.0")
    assert better == "gate, without intervals"


def chart_report(curves: tuple[Curve, ...] = (), kept: tuple[Kept, ...] = ()) -> Report:
    return sample().model_copy(update={"curves": curves, "kept": kept})


def test_the_threshold_stands_where_it_is() -> None:
    grid = {"measure": "face-encoder", "start": 0.0, "width": 0.1}
    curve = Curve(kind="impostor", counts=(100,) * 10, **grid)
    drawn = Curve(kind="drawn", generator="A", role="target-unseen", state="edited", counts=(1, 0), **grid)
    ((chart),) = walk(distributions(chart_report((curve, drawn)))).all("figure")
    limit = next(chart.all("line", "limit")).attributes
    threshold = next(c for c in sample().recognisers if c.recogniser == "face-encoder").points[0].threshold
    places = [float(x) for p in (*chart.all("polygon"), *chart.all("polyline"))
              for x in (pair.split(",")[0] for pair in p.attributes["points"].split())]  # fmt: skip
    assert (min(places), max(places)) == (0, 100)
    assert limit["x1"] == limit["x2"]
    assert -0.05 + float(limit["x1"].rstrip("%")) / 100 * 1.1 == pytest.approx(threshold, abs=1e-3)
    assert f"threshold {threshold:.3f} at FMR 1\u00a0%" in chart.text
    assert "Generator A, judged by face-encoder" in chart.text


def test_a_distribution_keeps_its_area() -> None:
    counts = tuple(range(40))
    curve = Curve(kind="genuine", measure="m", start=-1.0, width=0.05, counts=counts)
    ((chart),) = walk(distributions(chart_report((curve,)))).all("figure")
    mean = sum((-1 + 0.05 * (n + 0.5)) * c for n, c in enumerate(counts)) / sum(counts)
    said = next(chart.all("svg", "plot")).attributes["aria-label"]
    assert float(said.split("mean ")[1].rstrip(".").replace("\u2212", "-")) == pytest.approx(mean, abs=0.01)
    assert "threshold" not in chart.text


def test_few_pictures_are_drawn_coarsely() -> None:
    """Six pictures in two neighbouring bins of 75 must not dwarf thousands of pairs of photos."""
    few = Curve(kind="drawn", measure="m", generator="A", role="target-unseen", state="edited", start=-0.5, width=0.02,
                counts=tuple(3 if n in {20, 21} else 0 for n in range(75)))  # fmt: skip
    many = Curve(kind="genuine", measure="m", start=-0.5, width=0.02, counts=(40,) * 75)
    ((chart),) = walk(distributions(chart_report((few, many)))).all("figure")
    pairs = [p.split(",") for p in next(chart.all("polyline")).attributes["points"].split()]
    assert len(pairs) == 3
    heights = [100 - float(y) for _, y in pairs]
    flat = 100 - min(float(p.split(",")[1]) for p in next(chart.all("polygon")).attributes["points"].split())
    assert max(heights) / flat == pytest.approx(10 * 1.5, rel=0.01)


def test_each_retained_person_is_a_dot_and_empty_plots_vanish() -> None:
    kept = Kept(generator="A", measure="m", changes=((0.9, 0.0), (0.95, 0.1), (0.7, 0.3)))
    root = walk(kept_charts(chart_report(kept=(kept, kept.model_copy(update={"changes": ()})))))
    ((chart),) = root.all("figure")
    dots = [(float(d.attributes["cx"][:-1]), float(d.attributes["cy"][:-1])) for d in chart.all("circle")]
    assert len(dots) == 3
    assert dots[0][0] < dots[1][0] < dots[2][0], "likeness goes across"
    assert dots[1][1] < dots[0][1] < dots[2][1], "similarity goes up"
    assert "mean at least 0.8" in chart.text
    assert not distributions(chart_report())
    assert not kept_charts(chart_report())


def test_main_figures_are_drawn_where_they_are() -> None:
    report = sample("fail")
    panels = {p.text.split(" by ")[0]: p for p in walk(forest(report)).all("figure", "forest")}
    panel = next(p for title, p in panels.items() if title.startswith("Generator A: pictures that the recogniser"))
    rows = list(panel.all("li"))
    assert len(rows) == 8
    for row, by in zip(rows, RECOGNISERS * 4, strict=True):
        assert by in next(row.all("span", "who")).text
    wanted = [
        next(f.value for f in report.figures if (f.name, f.role, f.state, f.measure, f.generator, f.false_match_rate)
             == ("reidentified", "target-unseen", state, RECOGNISERS[0], "A", RATE))
        for state in ("original", "edited")
    ]  # fmt: skip
    drawn = [float(circle.attributes["cx"][:-1]) / 100 for circle in rows[0].all("circle")]
    assert drawn == pytest.approx(wanted, abs=1e-3)
    assert [line.attributes["x1"] for line in rows[0].all("line", "limit")] == ["10.00%"]
    assert not list(rows[-1].all("line", "limit"))
    distance = next(p for title, p in panels.items() if title.startswith("Generator A: distance"))
    assert [len(list(row.all("circle"))) for row in distance.all("li")] == [2]


def test_relearning_is_drawn_with_its_control() -> None:
    root = part(walk(page(sample())), "attacks")
    ((chart),) = root.all("figure")
    assert [len(line.attributes["points"].split()) for line in chart.all("polyline")] == [4, 4]
    assert "trained on another person (control)" in root.text


def test_groups_show_the_widest_gap() -> None:
    report = sample()
    root = part(walk(page(report)), "groups")
    tables = {next(table.all("caption")).text: table for table in root.all("table")}
    assert set(tables) == {"By hair", "By age"}
    found = [
        f.value for f in report.figures if f.group is not None and f.group.startswith("hair") and f.generator is None
    ]
    row = next(row for row in tables["By hair"].rows() if row[0].startswith("feature_cosine"))
    assert len(row) == 5
    assert row[-1] == number(max(found) - min(found), "cosine")


def test_tables_name_their_rows_and_columns() -> None:
    for table in walk(page(sample())).all("table"):
        assert table.inside[0].tag == "caption"
        assert table.inside[0].text
        assert {th.attributes["scope"] for th in table.all("th")} <= {"col", "row", "rowgroup"}
        width = len(table.rows()[0])
        assert {len(row) for row in table.rows()} <= {width, 1}


def test_plan_and_command_are_kept_whole() -> None:
    report = sample()
    root = part(walk(page(report)), "provenance")
    blocks = [block.text for block in root.all("pre")]
    assert blocks[0] == report.provenance.command
    assert '"max_attack_success": 0.25' in blocks[1]
    for digest in (report.subject.original_encoder, report.provenance.plan_digest, *report.provenance.digests.values()):
        assert digest in root.text


def test_numbers() -> None:
    assert number(-1e-12, "share") == "0.0\u00a0%"
    # What is not nothing, or not all, is not shown as it.
    assert number(-0.0001, "share") == "\u22120.01\u00a0%"
    assert [number(value, "share") for value in (1, 0.9999, 0.99996)] == [
        "100.0\u00a0%",
        "99.99\u00a0%",
        "99.996\u00a0%",
    ]
    assert [number(value, "ratio") for value in (0.9999, 0.00004, 0.5)] == ["0.9999", "0.00004", "0.500"]
    assert judged(0.9499, "share", 0.95) == "94.99\u00a0%"
    assert judged(0.9499, "ratio", 0.95) == "0.9499"
    assert judged(0.9999, "ratio") == "0.9999"
    assert number(-0.0321, "cosine") == "\u22120.032"
    assert [number(value, "distance") for value in (0.00312, 41.27)] == ["0.0031", "41.3"]
    assert number(31.44, "dB") == "31.4\u00a0dB"
    assert ticks(0, 1, 5) == [0, 0.25, 0.5, 0.75, 1]
    assert ticks(-0.13, 0.41, 5) == [0, 0.2, 0.4]
    assert Frame(0, 0, 0, 1).x(0) == "50.00%"
