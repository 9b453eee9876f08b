"""The report in a real browser: phone and desktop, light and dark.

Skips without selenium, chromium or chromedriver; with TEST_NEED_BROWSER set, their absence is a failure.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NEED = bool(os.environ.get("TEST_NEED_BROWSER"))
if not NEED:
    pytest.importorskip("selenium")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402

from ireu_cli.report_page import audit_page, page, person_page  # noqa: E402
from tests.sample_report import encoder_only, hostile, nothing_measured, sample, sample_pictures  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE, DESKTOP = (390, 844), (1280, 900)
LONG = "W" * 90 + "<b>&"

LOOK = r"""
const parse = c => { const n = (c.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number); return n.length > 3 ? n : [...n, 1]; };
const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
const light = c => { const [r, g, b] = c.slice(0, 3).map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ground = e => { const found = [];
  for (let at = e; at; at = at.parentElement) found.push(parse(getComputedStyle(at).backgroundColor));
  const base = matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18, 1] : [255, 255, 255, 1];
  return found.reverse().reduce((below, c) => over(c, below), base); };
const pale = [], small = [];
let texts = 0, least = 99;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, e = node.parentElement;
  if (!node.data.trim() || !e.checkVisibility()) continue;
  texts += 1;
  const style = getComputedStyle(e), svg = e instanceof SVGElement;
  const behind = ground(e), ink = over(parse(svg ? style.fill : style.color), behind);
  const [high, low] = [light(ink), light(behind)].sort((a, b) => b - a);
  const contrast = (high + 0.05) / (low + 0.05);
  least = Math.min(least, contrast);
  if (contrast < 4.5) pale.push([node.data.trim().slice(0, 40), e.tagName, e.className, contrast]);
  const size = parseFloat(style.fontSize) * (svg ? e.getScreenCTM().d : 1);
  if (size < 12) small.push([node.data.trim().slice(0, 40), e.tagName, size]);
}
const edge = document.documentElement.clientWidth + 0.5;
const wide = [...document.querySelectorAll('body *')]
  .filter(e => !e.closest('.scroll, pre, svg svg') && e.getBoundingClientRect().right > edge)
  .map(e => [e.tagName, e.getAttribute('class'), e.textContent.slice(0, 30), e.getBoundingClientRect().right]);
const word = document.querySelector('h1 .word').getBoundingClientRect();
return {texts, least, pale: pale.slice(0, 9), small: small.slice(0, 9), wide: wide.slice(0, 9),
  scroll: document.documentElement.scrollWidth, inner: innerWidth, word: [word.top, word.bottom, word.left, word.right],
  dark: matchMedia('(prefers-color-scheme: dark)').matches, paper: getComputedStyle(document.body).backgroundColor};
"""
OPEN = "document.querySelectorAll('details').forEach(d => { d.open = true; });"


def _find(names: tuple[str, ...]) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        if NEED:
            pytest.fail(f"TEST_NEED_BROWSER is set and there is no {names[0]}")
        pytest.skip(f"no {names[0]} to look at the page with")
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = _find(BROWSERS)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(executable_path=_find(("chromedriver",))))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {
        "pass": page(sample(), sample_pictures()),
        "fail": page(sample("fail")),
        "inconclusive": page(sample("inconclusive")),
        "encoder": page(encoder_only()),
        "nothing": page(nothing_measured()),
        "long": page(hostile(LONG), [(LONG, LONG, sample_pictures()[0][2])]),
        "long names": page(hostile(LONG, names=True)),
        "person": person_page(sample("fail")),
        "long person": person_page(hostile(LONG)),
        "audit": audit_page(sample("inconclusive")),
    }
    for name, html in made.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


def _log(browser: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    """What the browser logged since it was asked last."""
    entries: list[dict[str, Any]] = browser.get_log(kind)  # type: ignore[no-untyped-call]
    return entries


def look(browser: webdriver.Chrome, path: Path, size: tuple[int, int], scheme: str) -> dict[str, Any]:
    """Open a page; what it says at first sight, what it says with everything unfolded, and what the browser says."""
    _log(browser, "browser"), _log(browser, "performance")
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(path.as_uri())
    first = browser.execute_script(LOOK)
    browser.execute_script(OPEN)
    events = [json.loads(entry["message"])["message"] for entry in _log(browser, "performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    # What the browser loads for its own start page is none of the report's doing.
    asked = [params["request"]["url"] for params in sent if params["documentURL"].startswith(path.as_uri())]
    return {
        "first": first,
        "unfolded": browser.execute_script(LOOK),
        "console": [entry for entry in _log(browser, "browser") if entry["level"] in {"WARNING", "SEVERE"}],
        "asked": [url for url in asked if not url.startswith("data:")],
    }


NAMES = ("pass", "fail", "inconclusive", "encoder", "nothing", "long", "long names", "person", "long person", "audit")
KINDS = ((PHONE, "light"), (DESKTOP, "dark"), (PHONE, "dark"), (DESKTOP, "light"))
LOOKS = [
    pytest.param(name, *kind, id=f"{name}-{'phone' if kind[0] == PHONE else 'desktop'}-{kind[1]}")
    for name in NAMES
    # A page is as wide in the dark as in the light: the others are looked at once on each screen and in each scheme.
    for kind in (KINDS if name in {"pass", "person"} else KINDS[:2])
]


@pytest.mark.parametrize(("name", "size", "scheme"), LOOKS)
def test_page(browser: webdriver.Chrome, pages: dict[str, Path], name: str, size: tuple[int, int], scheme: str) -> None:
    seen = look(browser, pages[name], size, scheme)
    assert seen["console"] == []
    assert seen["asked"] == [pages[name].as_uri()]
    for state in ("first", "unfolded"):
        found = seen[state]
        assert found["texts"] > (20 if "person" in name else 40)
        assert found["pale"] == []
        assert found["small"] == []
        assert found["wide"] == []
        assert found["inner"] == size[0]
        assert found["scroll"] <= size[0]
        assert found["dark"] == (scheme == "dark")
        assert (found["paper"] == "rgb(255, 255, 255)") == (scheme == "light")
    if "person" not in name:
        assert seen["unfolded"]["texts"] > seen["first"]["texts"]
    top, bottom, left, right = seen["first"]["word"]
    assert 0 <= top < bottom <= size[1]
    assert 0 <= left < right <= size[0]
