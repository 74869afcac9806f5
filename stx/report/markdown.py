"""report/report.md: says what was scored, how, at what cost, and what may be concluded. The page (stx/report/html.py)
says the same, and more; this one is for terminals, diffs and pull requests.
"""

from collections.abc import Sequence

from stx.report import tables, told
from stx.report.draw import Drawn
from stx.report.facts import Facts


def text(facts: Facts, drawn: Drawn) -> str:
    """The Markdown; figures are files beside it."""
    parts = [f"# {facts.experiment}", told.state(facts)]
    if facts.scores:
        parts += ["## Scores", "At the last milestone of each series:", tables.markdown(tables.summary(facts))]
        parts += _conclusions(facts)
    parts += _figures(drawn)
    if facts.scores:
        parts += ["## Protocol of the scores", told.PROTOCOL, tables.markdown(tables.protocol(facts))]
        parts += ["## Every score", tables.markdown(tables.all_scores(facts))]
    parts += ["## Time and cost", told.cost(facts), tables.markdown(tables.stage_costs(facts))]
    parts += ["Each of them:", tables.markdown(tables.costs(facts))]
    attempts = tables.attempts(facts)
    parts += ["## Attempts", tables.markdown(attempts) if attempts.rows else "Every stage was done in one attempt."]
    parts += ["## Where it comes from", tables.markdown(tables.origin(facts))]
    parts += ["## Payload digests", told.DIGESTS, tables.markdown(tables.digests(facts))]
    return "\n\n".join(parts) + "\n"


def _conclusions(facts: Facts) -> list[str]:
    parts = []
    for one in told.conclusions(facts):
        parts += [f"### {one.head}", *([one.note] if one.note else []), _bullets(one.sentences)]
    return [*parts, told.CLAIMS] if parts else []


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _figures(drawn: Drawn) -> list[str]:
    figures = [(chart.name, chart.title, chart.caption) for chart in drawn.charts if chart.png is not None]
    figures += [(grids[0].name, grids[0].title, told.SAMPLES) for grids in drawn.grids]
    parts = [f"![{title}]({name}.png)\n\n**{title}.** {caption}" for name, title, caption in figures]
    return ["## Figures", *parts] if parts else []
