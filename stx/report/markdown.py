"""report/report.md and its figures: says what was scored, how, at what cost, and what may be concluded.

Every file is written aside and renamed, the text last: a reader sees the old report or the new one. The lease holder
runs this in a child with a time limit, `stx report NAME` runs it at any time, also over a half-finished experiment.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from jobs import files
from stx.paths import ExperimentDir
from stx.report import claims, figures, tables
from stx.report.collect import Facts, Samples
from stx.report.words import duration, plural

NAME = "report.md"


def write(facts: Facts, *, experiment: ExperimentDir) -> Path:
    """Write figures and text; the path of the text."""
    folder = experiment.report
    folder.mkdir(parents=True, exist_ok=True)
    drawn = draw(facts)
    for name, png in drawn.items():
        files.write(folder / name, png)
    files.write(folder / NAME, text(facts, figure_names=list(drawn)).encode())
    for stale in folder.glob("*.png"):
        if stale.name not in drawn:
            with contextlib.suppress(FileNotFoundError):
                stale.unlink()
    return folder / NAME


def draw(facts: Facts) -> dict[str, bytes]:
    """Every figure that the facts allow, by file name."""
    drawn: dict[str, bytes | None] = {}
    for number, judge in enumerate(tables.judges(facts)):
        suffix = "" if number == 0 else f"-{number + 1}"
        for x in facts.x:
            drawn[f"score-{x}{suffix}.png"] = figures.score_figure(facts, x=x, judge=judge)
        for stage, option in figures.swept_options(facts):
            name = f"sweep-{stage}-{option.removeprefix(stage + '.').replace('.', '_')}{suffix}.png"
            drawn[name] = figures.sweep_figure(facts, stage=stage, option=option, judge=judge)
    for name, (samples, title) in _grids(facts).items():
        drawn[name] = figures.sample_figure(samples, class_names=facts.class_names, title=title)
    drawn["losses.png"] = figures.loss_figure(facts.curves, order=list(facts.series))
    return {name: png for name, png in drawn.items() if png is not None}


def _grids(facts: Facts) -> dict[str, tuple[list[Samples], str]]:
    """One grid per sampling protocol, at the last milestone that most series have; of each series its first seed."""
    grids = {}
    for number, protocol in enumerate(dict.fromkeys(one.protocol_key for one in facts.samples)):
        members = [one for one in facts.samples if one.protocol_key == protocol]
        counts = {
            images: len({m.series for m in members if m.images == images}) for images in {m.images for m in members}
        }
        images = max(counts, key=lambda count: (counts[count], count))
        rows: dict[str, Samples] = {}
        for one in sorted((m for m in members if m.images == images), key=lambda m: m.seed):
            rows.setdefault(one.series.label, one)
        order = [series.label for series in facts.series]
        chosen = sorted(
            rows.values(), key=lambda one: order.index(one.series.label) if one.series.label in order else len(order)
        )
        title = f"Generated at {images:,} images seen; the same noise and label down each column"
        grids["samples.png" if number == 0 else f"samples-{number + 1}.png"] = (chosen, title)
    return grids


def text(facts: Facts, *, figure_names: Sequence[str]) -> str:
    """The Markdown."""
    parts = [f"# {facts.experiment}", _state(facts)]
    if facts.scores:
        parts += ["## Scores", "At the last milestone of each series:", tables.markdown(tables.summary(facts))]
        parts += _conclusions(facts)
    parts += _figures(figure_names)
    if facts.scores:
        parts += ["## Protocol of the scores", PROTOCOL_NOTE, tables.markdown(tables.protocol(facts))]
        parts += ["## Every score", tables.markdown(tables.all_scores(facts))]
    parts += ["## Time and cost", _cost_note(facts), tables.markdown(tables.costs(facts))]
    attempts = tables.attempts(facts)
    parts += ["## Attempts", tables.markdown(attempts) if attempts.rows else "Every stage was done in one attempt."]
    parts += ["## Payload digests", DIGEST_NOTE, tables.markdown(tables.digests(facts))]
    return "\n\n".join(parts) + "\n"


PROTOCOL_NOTE = (
    "A score means something only together with all of this. A distance in the features of a classifier of ours is not "
    "FID and cannot be compared with published FID values."
)
DIGEST_NOTE = (
    "They repeat on the same layout (CPU, fp32, ranks, threads, packages), however often the run was interrupted."
)
COMPUTE_NOTE = (
    "Total compute counts a run's own training up to the milestone and everything it stands on: the phase-1 training, "
    "and what the teacher computed, online or into a cache. Data preparation, the same for all, is not counted."
)


def _state(facts: Facts) -> str:
    open_stages = [stage.node.name for stage in facts.stages if not stage.finished]
    if not open_stages:
        return f"All {plural(len(facts.stages), 'stage')} finished."
    shown = ", ".join(open_stages[:8]) + (", ..." if len(open_stages) > 8 else "")
    count = f"{len(open_stages)} of {plural(len(facts.stages), 'stage')}"
    return f"**Not finished:** {count} ({shown}). What follows is what there is so far."


def _conclusions(facts: Facts) -> list[str]:
    parts = []
    for judge in tables.judges(facts):
        images = claims.equal_images(facts, metric=facts.y, judge=judge)
        compute = claims.equal_compute(facts, metric=facts.y, judge=judge)
        head = f" ({judge})" if len(tables.judges(facts)) > 1 else ""
        if images:
            parts += [f"### At equal images seen{head}", _bullets(images)]
        if compute:
            parts += [f"### At equal total compute{head}", COMPUTE_NOTE, _bullets(compute)]
    if parts:
        parts.append(
            "A difference is claimed only where both sides have at least two seeds and their ranges do not touch."
        )
    return parts


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _figures(names: Sequence[str]) -> list[str]:
    captions = {
        "score-images_seen": "Score against images seen: lines are means over seeds, bands the range, dots the seeds.",
        "score-total_compute": "Score against total compute: phase 1, teachers and caches are counted.",
        "sweep": "Score against the swept option.",
        "samples": "Samples with the same noise and label down each column.",
        "losses": "Diffusion loss along each run's lineage.",
    }
    parts = ["## Figures"] if names else []
    for name in names:
        caption = next(words for start, words in captions.items() if name.startswith(start))
        parts.append(f"![{caption}]({name})\n\n{caption}")
    return parts


def _cost_note(facts: Facts) -> str:
    total = sum(stage.seconds or 0.0 for stage in facts.stages)
    return (
        f"{duration(total)} of stage time in all (stages run side by side; a stage that another experiment paid for "
        "counts here too). FLOPs are planned arithmetic, one multiply-add is two."
    )
