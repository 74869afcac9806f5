"""report/report.html: one page that opens from disk, light and dark, narrow and wide, and needs nothing beside it: no
network, no script, figures as SVG and data URIs.

What it shows is made elsewhere (draw, tables, told); the words around it are in templates/. Text is escaped by jinja2;
of Markdown, the page knows `code` and **bold**, because the tables and the claims are shared with report.md.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from stx.report import claims, pictures, tables, theme, told
from stx.report.canvas import Chart, Key
from stx.report.draw import Drawn
from stx.report.facts import Facts
from stx.report.words import duration, flops, number, plural

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Tile:
    """One number at the head of the page."""

    head: str
    value: str
    words: str


def page(facts: Facts, drawn: Drawn) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "inline": inline,
        "symbol": symbol,
        "strip": pictures.strip_uri,
        "svg": Markup,
        "pitch": _pitch,
    }
    return environment.get_template("report.html.j2").render(
        facts=facts,
        drawn=drawn,
        tables=tables,
        told=told,
        tiles=_tiles(facts),
        colours=theme.ALL,
        num_colours=len(theme.SERIES),
        num_markers=len(theme.MARKERS),
        keys=_keys,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def inline(text: str, numeric: bool = False) -> Markup:
    """Escaped, with `code` and **bold**; of a number, what stands in brackets behind it goes below it, small."""
    safe = str(escape(text))
    safe = re.sub(r"^(\S+) \((.+)\)$", r"\1<small>\2</small>", safe) if numeric else safe
    safe = re.sub(r"`([^`]*)`", r"<code>\1</code>", safe)
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe))  # noqa: S704 - escaped above


def symbol(name: str) -> Markup:
    """x_t with its t below."""
    return Markup(re.sub(r"^([xf])_([a-z])$", r"<i>\1<sub>\2</sub></i>", str(escape(name))))  # noqa: S704 - escaped


def _pitch(columns: Sequence[Any]) -> str:
    """As many columns as a strip has cells."""
    return f"repeat({len(columns)}, minmax(0, 1fr))"


def _keys(charts: Sequence[Chart]) -> list[Key]:
    """One legend for several charts: every series once, first come."""
    found: dict[int, Key] = {}
    for chart in charts:
        for key in chart.keys:
            if key.index not in found or found[key.index].dashed:
                found[key.index] = key
    return sorted(found.values(), key=lambda key: key.index)


def _tiles(facts: Facts) -> list[Tile]:
    finished = sum(stage.finished for stage in facts.stages)
    attempts = [one for stage in facts.stages for one in stage.attempts]
    bad = sum(one.result not in {"COMPLETED", "YIELDED", "LIVE"} for one in attempts)
    hours = sum(stage.hours(gpus=facts.on_gpus) for stage in facts.stages)
    seconds = sum(stage.seconds or 0.0 for stage in facts.stages)
    return [
        *_best(facts),
        Tile(
            "stages finished", f"{finished:,} of {len(facts.stages):,}", f"{plural(len(facts.nodes), 'node')} planned"
        ),
        Tile(facts.hours_unit, tables.amount(hours), f"{duration(seconds)} of stage time"),
        Tile("compute", flops(sum(stage.node.cost.flops for stage in facts.stages)), "planned arithmetic"),
        Tile("attempts", f"{len(attempts):,}", f"{bad:,} failed or lost"),
    ]


def _best(facts: Facts) -> list[Tile]:
    """The best score of all: a fact about this table, not a claim."""
    scores = [score for score in facts.scores if facts.y in score.values]
    if not scores:
        return []
    choose = min if claims.lower_is_better(facts.y) else max
    best = choose(scores, key=lambda score: score.values[facts.y])
    word = "lowest" if claims.lower_is_better(facts.y) else "highest"
    words = f"{best.series.label}, seed {best.seed}, at {best.images:,} images seen"
    return [Tile(f"{word} {facts.y.replace('_', ' ')}", number(best.values[facts.y]), words)]
