"""The experiment and the cluster file: whatever bytes they hold, a plan or a ConfigError that names the file."""

import itertools
import time
from pathlib import Path

import pytest

from stx import plan
from stx.config import yaml
from stx.config.cluster import Cluster, load_cluster
from stx.config.load import load_experiment
from stx.errors import ConfigError
from tests.fuzz import mutations

CLUSTER = """\
launcher: local
poll_s: 0.5
retries: {lost: 3}
backoff_s: [0, 5]
limits: {queued: 2, running: 10}
stages:
  default: {ranks: 1, time: 1h}
  train: {layouts: [{nodes: 1, ranks_per_node: 2, micro_batch: 4}], zero_stage: 1}
on_event: [echo, x]
"""
BOMB = "a: &a [x, x]\n" + "\n".join(f"b{n}: &b{n} [*{'a' if n == 0 else f'b{n - 1}'}, *a]" for n in range(40))
TEXTS = (
    BOMB,
    "a: &a [*a]",
    "name: !!python/object/apply:os.system [echo]",
    "name: !!binary aGk=",
    "? [a, b]\n: c",
    "<<: {name: x}",
    "- " * 3000,
    "[" * 100_000,
    "{a: " * 50_000,
    "a: " + "9" * 5000,
    "a: 1e999",
    "a: .nan",
    "a: 0x" + "f" * 3000,
    "a: 0o" + "7" * 3000,
    "x" * 1_000_000,
    '"' + "\\u0000" * 1000 + '"',
    "a: \x00",
    "a: \ud800",
    "name: \x1b[2J",
    "%YAML 9.9\n---\na: b",
    "a: 1\na: 2",
    "a: |\n" + "  x\n" * 100_000,
    "---\n" * 10_000,
)
LIMIT_S = 20


def planned(path: Path) -> None:
    plan.expand(load_experiment(path), Cluster())


def survives(read, path: Path, data: bytes) -> None:
    path.write_bytes(data)
    began = time.process_time()
    try:
        read(path)
    except ConfigError as error:
        assert error.exit_code == 2 and str(path.parent) in str(error), (error, data[:300])
        assert "\x1b" not in str(error), error
    assert time.process_time() - began < LIMIT_S, data[:300]


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_hostile_yaml_is_refused_by_name(number, tmp_path):
    data = TEXTS[number].encode(errors="surrogatepass")
    survives(planned, tmp_path / "e.yaml", data)
    survives(load_cluster, tmp_path / "c.yaml", data)


@pytest.mark.parametrize("count", [40, pytest.param(3000, marks=pytest.mark.full)])
def test_a_damaged_experiment_is_planned_or_refused_by_name(count, small, tmp_path):
    path, real = tmp_path / "e.yaml", small.encode()
    value = yaml.parse(small, file="e.yaml").value
    for data in itertools.chain(
        mutations.damaged(real, seed=11, count=count), mutations.swapped(value, seed=11, count=2 * count)
    ):
        survives(planned, path, data)


@pytest.mark.parametrize("count", [150, pytest.param(5000, marks=pytest.mark.full)])
def test_a_damaged_cluster_file_is_read_or_refused_by_name(count, tmp_path):
    path, real = tmp_path / "c.yaml", CLUSTER.encode()
    value = yaml.parse(CLUSTER, file="c.yaml").value
    load_cluster((path.write_bytes(real), path)[1])
    for data in itertools.chain(
        mutations.damaged(real, seed=12, count=count), mutations.swapped(value, seed=12, count=count)
    ):
        survives(load_cluster, path, data)


def test_a_sweep_that_fills_the_memory_is_refused_before_it_is_made(small, tmp_path):
    path = tmp_path / "e.yaml"
    seeds, rates = ",".join(map(str, range(1000))), ",".join(f"{n}e-6" for n in range(1, 1001))
    path.write_text(small.replace("sweep: {seed: [0, 1]}", f"sweep: {{seed: [{seeds}], lr: [{rates}]}}"))
    with pytest.raises(ConfigError, match="a grid of 1,000,000 points, at most 100,000 can be planned"):
        planned(path)


@pytest.mark.slow
def test_sweeps_that_cross_to_too_many_stages_are_refused(small, tmp_path):
    path = tmp_path / "e.yaml"
    many = ",".join(map(str, range(400)))
    text = small.replace("sweep: {seed: [0, 1]}", "seed: 1").replace(
        "judge: {", f"judge: {{sweep: {{seed: [{many}]}}, "
    )
    path.write_text(text.replace("images: {kind: images,", f"images: {{sweep: {{seed: [{many}]}}, kind: images,"))
    with pytest.raises(ConfigError, match="which is the limit"):
        planned(path)
