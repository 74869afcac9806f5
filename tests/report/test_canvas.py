"""Colours and drawings: readable on both papers, every colour a variable, ids that do not meet in one page."""

import re

import pytest

from stx.report import canvas, theme
from stx.report.canvas import Key
from stx.report.draw import Drawn, draw
from stx.report.facts import Facts


@pytest.mark.parametrize("colour", theme.SERIES, ids=lambda colour: colour.name)
def test_series_stand_out_from_both_papers(colour: theme.Colour) -> None:
    assert theme.contrast(colour.light, theme.PAPER.light) >= 3
    assert theme.contrast(colour.dark, theme.PAPER.dark) >= 3


@pytest.mark.parametrize("words", [theme.INK, theme.MUTED], ids=lambda colour: colour.name)
def test_words_are_readable_on_both_papers_and_panels(words: theme.Colour) -> None:
    for ground in (theme.PAPER, theme.PANEL):
        assert theme.contrast(words.light, ground.light) >= 4.5
        assert theme.contrast(words.dark, ground.dark) >= 4.5


def test_contrast_is_that_of_wcag() -> None:
    assert theme.contrast("#ffffff", "#000000") == pytest.approx(21)
    assert theme.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_no_two_colours_of_the_theme_are_equal_so_that_each_is_found_again() -> None:
    assert len({colour.light for colour in theme.ALL}) == len(theme.ALL)


def test_a_drawing_has_no_colour_of_its_own(drawn: Drawn) -> None:
    assert len(drawn.charts) == 6
    for chart in drawn.charts:
        assert re.findall(r"#[0-9a-fA-F]{6}\b", chart.svg) == [], chart.name
        assert "var(--series-1)" in chart.svg
        assert not re.search(r'<svg[^>]* (width|height)="', chart.svg)


def test_ids_of_several_drawings_do_not_meet_and_all_references_lead_somewhere(drawn: Drawn) -> None:
    page = "".join(chart.svg for chart in drawn.charts)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)


def test_a_drawing_is_the_same_twice(facts: Facts, drawn: Drawn) -> None:
    again = draw(facts)
    assert [chart.svg for chart in again.charts] == [chart.svg for chart in drawn.charts]
    assert again.pngs() == drawn.pngs()


def test_more_series_than_colours_differ_in_marker_and_line() -> None:
    styles = {tuple(sorted((name, str(value)) for name, value in canvas.style_of(n).items())) for n in range(24)}
    assert len(styles) == 24


def test_a_legend_of_a_hundred_is_left_to_the_page() -> None:
    with canvas.axes() as axes:
        for number in range(100):
            axes.plot([0, 1], [number, number], label=str(number))
        keys = [Key(str(number), number) for number in range(100)]
        chart = canvas.finish(axes, name="n", title="t", caption="c", alt="a", keys=keys)
        assert axes.get_legend() is None
    assert len(chart.keys) == 100
