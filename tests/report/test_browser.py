"""The page in a real browser, Chromium without a window: every figure is there, nothing is fetched, nothing complains,
light and dark, on a phone and on a wide screen.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stx.report.collect import collect
from stx.report.write import write

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.slow

# What a page must answer: figures without a picture or without room, and whatever is wider than the window without
# scrolling inside itself.
BROKEN = """() => {
  for (const one of document.querySelectorAll('details')) one.open = true;
  const bad = [];
  for (const image of document.images)
    if (!(image.complete && image.naturalWidth > 0 && image.width > 0)) bad.push(image.alt);
  for (const svg of document.querySelectorAll('.drawing svg')) {
    const box = svg.getBoundingClientRect();
    if (!(box.width > 100 && box.height > 50)) bad.push(svg.parentElement.getAttribute('aria-label'));
    for (const shape of svg.querySelectorAll('use'))
      if (!document.getElementById(shape.getAttribute('xlink:href').slice(1))) bad.push('use without a shape');
  }
  return bad;
}"""
OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
LONG_LINE = "() => { document.querySelector('.command').textContent = 'word'.repeat(100) }"
GROUND = "() => getComputedStyle(document.body).backgroundColor"
COLOURS = """() => [...new Set([...document.querySelectorAll('.chart svg text, .chart svg path')].map(
  (one) => getComputedStyle(one).fill))]"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        words = "no chromium on the path; tools/test installs it where it may (apt-get install chromium)"
        if os.environ.get("STX_CI"):
            pytest.fail(words)
        pytest.skip(words)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # A container's root has no sandbox to give; the page is our own file.
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def quickstart_page(quickstart: Any) -> Path:
    return write(collect(quickstart.store, quickstart.experiment), experiment=quickstart.experiment).html


def opened(browser: Any, path: Path, *, scheme: str, width: int) -> tuple[Any, list[str]]:
    """The page, and a list that its complaints and requests go into."""
    page = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
    seen: list[str] = []
    page.on("console", lambda message: seen.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.on("requestfailed", lambda request: seen.append(f"failed: {request.url[:80]}"))
    page.on("request", lambda request: seen.append(request.url) if request.url.startswith("http") else None)
    page.goto(path.as_uri())
    return page, seen


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_figure_loads_and_nothing_overflows(browser: Any, quickstart_page: Path, scheme: str, width: int) -> None:
    page, seen = opened(browser, quickstart_page, scheme=scheme, width=width)
    assert page.evaluate(BROKEN) == []
    assert page.evaluate(OVERFLOW) == 0
    assert page.evaluate("() => document.images.length") == 10
    assert page.evaluate("() => document.querySelectorAll('.drawing svg').length") == 7
    assert seen == []
    page.context.close()


def test_nothing_overflows_where_the_contents_move_to_the_side(browser: Any, quickstart_page: Path) -> None:
    page, _ = opened(browser, quickstart_page, scheme="light", width=1239)
    page.evaluate(LONG_LINE)
    found = {}
    for width in (1239, 1240, 1280, 1357):
        page.set_viewport_size({"width": width, "height": 800})
        found[width] = page.evaluate(OVERFLOW)
    assert found == dict.fromkeys(found, 0)
    page.context.close()


def test_dark_paper_has_light_ink_in_figures_too(browser: Any, quickstart_page: Path) -> None:
    found = {}
    for scheme in ("light", "dark"):
        page, _ = opened(browser, quickstart_page, scheme=scheme, width=1400)
        found[scheme] = (page.evaluate(GROUND), set(page.evaluate(COLOURS)))
        page.context.close()
    assert found["light"][0] == "rgb(255, 255, 255)"
    assert found["dark"][0] == "rgb(20, 23, 28)"
    assert "rgb(29, 37, 48)" in found["light"][1]
    assert "rgb(230, 234, 240)" in found["dark"][1]
    assert "rgb(29, 37, 48)" not in found["dark"][1]


def test_what_blocks_see_loads_on_a_phone_with_long_class_names(browser: Any, inspected: Any) -> None:
    names = b'{"class_names": ["a very long name of a class that goes on", "b", "c"]}'
    inspected.finish(inspected.add("images", "images"), files={"payload/images.json": names})
    inspected.save()
    path = write(collect(inspected.store, inspected.experiment), experiment=inspected.experiment).html
    page, seen = opened(browser, path, scheme="light", width=360)
    assert page.evaluate(BROKEN) == []
    assert page.evaluate(OVERFLOW) == 0
    assert page.evaluate("() => document.querySelectorAll('.look img').length") == 3 * 2 * 2
    assert seen == []
    page.context.close()
