"""The report's tables: facts to rows of words. Pure; markdown and the command line print the same rows."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from stx.report.claims import lower_is_better
from stx.report.facts import Facts, Score, StageFacts
from stx.report.words import duration, flops, number, one_line, plain, plural

DIGEST_DIGITS = 12


@dataclass(frozen=True)
class Table:
    """A header and rows of words; numbers are right-aligned where a column's name is in `numeric`."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[str] = frozenset()


def metrics(facts: Facts) -> list[str]:
    """The scored metrics, the report's own first."""
    names = dict.fromkeys(name for score in facts.scores for name in score.values)
    return sorted(names, key=lambda name: name != facts.y)


def judges(facts: Facts) -> list[str]:
    """The evaluate stages, as the report calls them."""
    return list(dict.fromkeys(score.judge for score in facts.scores))


def summary(facts: Facts, *, directions: bool = True) -> Table:
    """Per series its last milestone: mean over seeds, with the range. `directions`: heads say which way is better."""
    several = len(judges(facts)) > 1
    rows = []
    for (label, judge), scores in _grouped(facts.scores).items():
        last = max(score.images for score in scores)
        final = [score for score in scores if score.images == last]
        cells = [_range([score.values[name] for score in final if name in score.values]) for name in metrics(facts)]
        told = (f"{last:,}", flops(final[0].compute), _hours(final), str(len(final)))
        rows.append((label, *([judge] if several else []), *told, *cells))
    common = ("images seen", "total compute", facts.hours_unit, "seeds")
    header = ("series", *(["scores"] if several else []), *common)
    heads = [f"{name} ({direction(name)})" if directions else name for name in metrics(facts)]
    return Table((*header, *heads), tuple(rows), frozenset({*common, *heads}))


def direction(metric: str) -> str:
    """Which way a metric is better."""
    return "lower is better" if lower_is_better(metric) else "higher is better"


def _hours(scores: Sequence[Score]) -> str:
    """The mean over seeds."""
    known = [score.hours for score in scores if score.hours is not None]
    return amount(fmean(known)) if known else "-"


def amount(value: float) -> str:
    """Hours of devices: two or three significant digits."""
    return f"{value:.2g}" if value < 1 else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def all_scores(facts: Facts) -> Table:
    """Every evaluated milestone of every run."""
    names = metrics(facts)
    rows = [
        (
            score.series.label,
            score.seed,
            score.judge,
            f"{score.images:,}",
            flops(score.compute),
            _hours([score]),
            *(number(score.values[name]) if name in score.values else "-" for name in names),
            f"`{score.digest[:DIGEST_DIGITS]}`",
        )
        for score in facts.scores
    ]
    measured = ("images seen", "total compute", facts.hours_unit, *names)
    return Table(("series", "seed", "scores", *measured, "payload digest"), tuple(rows), frozenset(measured))


def protocol(facts: Facts) -> Table:
    """The whole protocol of the scores; where protocols differ, one column each."""
    columns: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for score in facts.scores:
        columns.setdefault(tuple(protocol_words(score.protocol).items()), []).append(score.judge)
    names = list(dict.fromkeys(name for column in columns for name, _ in column))
    heads = [", ".join(dict.fromkeys(members)) for members in columns.values()]
    rows = [(name, *(dict(column).get(name, "-") for column in columns)) for name in names]
    return Table(("protocol", *heads), tuple(rows))


# Rows of the protocol table: what it is called, and the words, with the protocol's own values in braces.
PROTOCOL_ROWS = (
    (
        "frechet_distance",
        "Frechet distance in the {extractor.feature_width}-d features of classifier {extractor.classifier} (not FID)",
    ),
    ("classifier", "ours, trained on the real images; right on {extractor.held_out_accuracy} of held-out ones"),
    ("generated", "{num_samples} samples, labels {labels}, seed {seed}, in chunks of {sample_batch}"),
    ("sampler", "{solver}, {steps} steps, guidance {guidance} inside t of {interval}"),
    ("weights", "{weights}, decay {ema_decay}"),
    ("weights", "{weights}"),
    ("compared with", "{num_real} images of the {split} split of {against}"),
)
KEYS = frozenset({"extractor.classifier", "against"})


def protocol_words(protocol: Mapping[str, Any]) -> dict[str, str]:
    """A protocol as sentences where all their values are there, and whatever is left over as it is. What names the
    scored run itself is left to the table of scores.
    """
    flat = flatten({name: value for name, value in protocol.items() if name not in {"run", "images", "samples"}})
    left = {name: value[:8] if name in KEYS else value for name, value in flat.items()}
    words: dict[str, str] = {}
    for name, template in PROTOCOL_ROWS:
        used = re.findall(r"\{([^}]+)\}", template)
        if name not in words and all(key in left for key in used):
            words[name] = _filled(template, left)
            left = {key: value for key, value in left.items() if key not in used or key in KEYS}
    return words | {name: value for name, value in left.items() if not (words and name in KEYS)}


def _filled(template: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{([^}]+)\}", lambda match: values[match[1]], template)


def flatten(value: Mapping[str, Any], *, prefix: str = "") -> dict[str, str]:
    """Nested options as dotted names."""
    flat: dict[str, str] = {}
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= flatten(inner, prefix=f"{prefix}{name}.")
        else:
            flat[prefix + name] = plain(inner)
    return flat


def costs(facts: Facts) -> Table:
    """Time and planned arithmetic of every key."""
    rows = [_cost(stage, gpus=facts.on_gpus) for stage in facts.stages]
    numbers = ("attempts", "time", facts.hours_unit, "recomputed images", "FLOPs (planned)")
    return Table(("stage", "kind", "key", "state", "ranks", *numbers), tuple(rows), frozenset(numbers))


def _cost(stage: StageFacts, *, gpus: bool) -> tuple[str, ...]:
    ranks = sorted({attempt.ranks for attempt in stage.attempts})
    return (
        stage.node.name,
        stage.node.spec.kind,
        f"`{stage.node.key[:8]}`",
        "finished" if stage.finished else f"{len(stage.digests)} of {len(stage.node.wants) or 1}",
        ", ".join(map(str, ranks)) or "-",
        str(len(stage.attempts)),
        duration(stage.seconds),
        amount(stage.hours(gpus=gpus)),
        f"{sum(attempt.recomputed_images for attempt in stage.attempts):,}",
        flops(stage.node.cost.flops),
    )


def stage_costs(facts: Facts) -> Table:
    """The same, folded by stage of the experiment file, with a last line for all."""
    members: dict[str, list[StageFacts]] = {}
    for stage in facts.stages:
        members.setdefault(stage.node.stage, []).append(stage)
    rows = [(name, of[0].node.spec.kind, *_sums(of, gpus=facts.on_gpus)) for name, of in members.items()]
    rows.append(("**all**", "", *_sums(facts.stages, gpus=facts.on_gpus)))
    numbers = ("finished", "attempts", "time", facts.hours_unit, "recomputed images", "FLOPs (planned)")
    return Table(("stage", "kind", *numbers), tuple(rows), frozenset(numbers))


def _sums(stages: Sequence[StageFacts], *, gpus: bool) -> tuple[str, ...]:
    attempts_ = [attempt for stage in stages for attempt in stage.attempts]
    return (
        f"{sum(stage.finished for stage in stages):,} of {len(stages):,}",
        f"{len(attempts_):,}",
        duration(sum(stage.seconds or 0.0 for stage in stages)),
        amount(sum(stage.hours(gpus=gpus) for stage in stages)),
        f"{sum(attempt.recomputed_images for attempt in attempts_):,}",
        flops(sum(stage.node.cost.flops for stage in stages)),
    )


def causes(facts: Facts) -> Table:
    """How attempts ended, counted."""
    groups: dict[tuple[str, str], list[float]] = {}
    for stage in facts.stages:
        for one in stage.attempts:
            groups.setdefault((one.result, one.cause or "-"), []).append(one.seconds or 0.0)
    rows = [(*key, f"{len(times):,}", duration(sum(times))) for key, times in sorted(groups.items())]
    return Table(("result", "cause", "attempts", "time"), tuple(rows), frozenset({"attempts", "time"}))


def attempts(facts: Facts) -> Table:
    """The attempts of the stages that needed more than one, or that did not end well."""
    rows = [
        (
            stage.node.name,
            str(one.number),
            one.result,
            one.cause,
            str(one.ranks),
            duration(one.seconds),
            one_line(one.message),
        )
        for stage in facts.stages
        if len(stage.attempts) > 1 or any(one.result != "COMPLETED" for one in stage.attempts)
        for one in stage.attempts
    ]
    return Table(
        ("stage", "attempt", "result", "cause", "ranks", "time", "message"), tuple(rows), frozenset({"attempt", "time"})
    )


def digests(facts: Facts) -> Table:
    """The payload digests that are promised to repeat on an equal layout."""
    rows = [
        (stage.node.name, "-" if images is None else f"{images:,}", f"`{digest[:DIGEST_DIGITS]}`")
        for stage in facts.stages
        for images, digest in stage.digests.items()
    ]
    return Table(("stage", "images seen", "payload digest"), tuple(rows), frozenset({"images seen"}))


def origin(facts: Facts) -> Table:
    """What computed it: code, packages, clusters, hosts, layouts. Where attempts differ, all of them."""
    source = facts.origin
    rows = [("stages asked for", f"{len(facts.nodes):,}, digest of their keys `{source.graph[:DIGEST_DIGITS]}`")]
    rows += [("code", _counted({f"`{code[:DIGEST_DIGITS]}`": count for code, count in source.codes.items()}))]
    rows += [(name, ", ".join(found)) for name, found in source.versions.items()]
    rows += [("cluster", ", ".join(source.clusters)), ("hosts", ", ".join(source.hosts))]
    rows += [("layout", _counted(source.layouts, separator="; "))]
    return Table(("what", "which"), tuple((name, one_line(words, limit=600) or "not recorded") for name, words in rows))


def _counted(counts: Mapping[str, int], *, separator: str = ", ") -> str:
    """A single value as it is; several with the number of their attempts."""
    if len(counts) == 1:
        return next(iter(counts))
    return separator.join(f"{value} ({plural(count, 'attempt')})" for value, count in counts.items())


def _grouped(scores: Sequence[Score]) -> dict[tuple[str, str], list[Score]]:
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.series.label, score.judge), []).append(score)
    return groups


def _range(values: Sequence[float]) -> str:
    if not values:
        return "-"
    if len(values) == 1:
        return f"{number(values[0])} (one seed)"
    return f"{number(fmean(values))} ({number(min(values))} to {number(max(values))})"


def markdown(table: Table) -> str:
    """A GitHub table; bars inside cells are escaped."""
    rule = ["---:" if name in table.numeric else "---" for name in table.header]
    lines = [table.header, tuple(rule), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
