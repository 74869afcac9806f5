"""What the report says in sentences, the same in report.md and in the page."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from stx.report import claims, tables
from stx.report.facts import Facts
from stx.report.words import duration, plural

PROTOCOL = (
    "A score means something only together with all of this. A distance in the features of a classifier of ours is not "
    "FID and cannot be compared with published FID values."
)
DIGESTS = "They repeat on the same layout (CPU, fp32, ranks, threads, packages), however often the run was interrupted."
COMPUTE = (
    "Total compute counts a run's own training up to the milestone and everything it stands on: the phase-1 training, "
    "and what the teacher computed, online or into a cache. Data preparation, the same for all, is not counted. Each "
    "series is taken at its last milestone, the baseline at the same total compute: at a milestone, or on the straight "
    "line between two. Where the baseline was not scored on both sides of it, nothing is said, whoever is ahead."
)
CLAIMS = "A difference is claimed only where both sides have at least two seeds and their ranges do not touch."
SAMPLES = (
    "Not selected: the first of each class, then the others in order, as many as a row holds. The same noise and "
    "label down each column; of each series its first seed."
)
LOOKS = (
    "The first three principal components of what differs between images in a block's tokens, as red, green and blue, "
    "fitted per time and block over all inspected images at once; the sign of a component is fixed, its colour "
    "otherwise means nothing. The first column is the input of the network, decoded; t = 1 is noise."
)
GUIDED = (
    "f_c is what a run's own teacher makes of the image and its label, f_g = f_u + guidance (f_c - f_u) what the "
    "student is taught, with f_u without a label; both in one basis."
)
PROBES = (
    "A linear classifier (closed-form ridge) on the mean-pooled hidden states after each block, trained on images of "
    "the train split, scored on held-out ones. The network is given the null label: the true one would leak the answer."
)


@dataclass(frozen=True)
class Conclusion:
    """What may be said, under one heading."""

    head: str
    note: str
    sentences: Sequence[str]


def state(facts: Facts) -> str:
    """Whether it is finished, and if not, what is missing."""
    open_stages = [stage.node.name for stage in facts.stages if not stage.finished]
    if not open_stages:
        return f"All {plural(len(facts.stages), 'stage')} finished."
    shown = ", ".join(open_stages[:8]) + (", ..." if len(open_stages) > 8 else "")
    count = f"{len(open_stages)} of {plural(len(facts.stages), 'stage')}"
    return f"**Not finished:** {count} ({shown}). What follows is what there is so far."


def conclusions(facts: Facts) -> list[Conclusion]:
    """At equal images seen, and at equal total compute."""
    found = []
    for judge in tables.judges(facts):
        head = f" ({judge})" if len(tables.judges(facts)) > 1 else ""
        images = claims.equal_images(facts, metric=facts.y, judge=judge)
        compute = claims.equal_compute(facts, metric=facts.y, judge=judge)
        found += [Conclusion(f"At equal images seen{head}", "", images)] if images else []
        found += [Conclusion(f"At equal total compute{head}", COMPUTE, compute)] if compute else []
    return found


def cost(facts: Facts) -> str:
    """What the table of costs counts."""
    total = sum(stage.seconds or 0.0 for stage in facts.stages)
    return (
        f"{duration(total)} of stage time in all (stages run side by side; a stage that another experiment paid for "
        f"counts here too). Time x {'GPUs' if facts.on_gpus else 'cores'} of all attempts, lost work included, are "
        f"{facts.hours_unit}. FLOPs are planned arithmetic, one multiply-add is two."
    )


def again(facts: Facts) -> str:
    """Commands that run the same experiment again from nothing but themselves."""
    file = f"{facts.experiment}.yaml"
    cluster = [f"--cluster {shlex.quote(facts.origin.clusters[0])}"] if len(facts.origin.clusters) == 1 else []
    submit = " ".join(["stx submit", shlex.quote(file), *(cluster if cluster != ["--cluster local"] else [])])
    mark = next(
        word for word in ("EOF", *(f"EOF{n}" for n in range(1000))) if word not in facts.origin.text.split("\n")
    )
    return f"cat > {shlex.quote(file)} <<'{mark}'\n{facts.origin.text.rstrip()}\n{mark}\n{submit}"
