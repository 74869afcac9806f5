# ruff: noqa: E501 - errors are tested by line, so a stage stays on one
"""A small experiment of every kind but command, and ways to plan variations of it."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from stx import plan
from stx.config.cluster import Cluster
from stx.config.load import load_experiment
from stx.errors import ConfigError
from stx.spec import Graph, Node
from stx.verbs import console
from tests import sampling
from tests.ray_cluster import raycluster  # noqa: F401 - a fixture
from tests.slurm_cluster import devcluster  # noqa: F401 - a fixture

# A shell that starts us in the background has SIGINT ignored, nohup SIGHUP, and so would every program that a test ends.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Failures:
    """Says at once why a test failed, in a run of hours; pytest says it at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            terminal.write_line(f"\n{report.nodeid} ({report.when})\n{report.longreprtext}")


def pytest_configure(config: pytest.Config) -> None:
    sampling.draw_seed()
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Failures(config))


def pytest_report_header() -> str:
    return f"{sampling.SEED}={os.environ[sampling.SEED]} draws the same sample of the tests on clusters again"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with slow tests first, whole experiments before all, those first of which one test may take longest: all
    processes then end at about the same time.
    """
    sampling.sample(config, items)
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("full")}
    longest: dict[Path, float] = {}
    for item in items:
        mark = item.get_closest_marker("timeout")
        longest[item.path] = max(longest.get(item.path, 0.0), float(mark.args[0]) if mark else 0.0)
    items.sort(key=lambda item: (item.path not in slow, "integration" not in item.path.parts, -longest[item.path]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures of passed tests, too: `record_property("figures", TEXT)`; a test process has no terminal."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name == "figures" and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid}: {value}")


@pytest.fixture(autouse=True)
def no_store_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb that ran in this process may have named the store of its cluster file for the commands it suggests."""
    monkeypatch.setattr(console, "_from_cluster", [])


SMALL = """\
name: small
defaults:
  train: {model: SiT-Mu/2, global_batch: 8, precision: fp32, steps: 40, milestones: [20]}
stages:
  images: {kind: images, source: mnist5k, resolution: 32, held_out: 500}
  vae: {kind: autoencoder, images: images}
  latents: {kind: latents, images: images, autoencoder: vae}
  judge: {kind: classifier, images: images}
  vanilla: {kind: train, latents: latents, sweep: {seed: [0, 1]}}
  phase1: {kind: train, latents: latents, seed: 100, alignment: {method: velocity_head, head_block: 1}}
  teacher: {kind: freeze, run: phase1}
  features: {kind: features, teacher: teacher, latents: latents, teacher_block: 2}
  phase2:
    kind: train
    latents: latents
    alignment: {method: guided_teacher, teacher: teacher, features: features, student_block: 1, teacher_block: 2, guidance: 5}
    sweep: [{seed: 0}, {alignment.guidance: 30, seed: 0}]
  samples: {kind: sample, runs: [vanilla, phase1, phase2], num_samples: 20}
  scores: {kind: evaluate, samples: samples, against: images, extractor: {classifier: judge}, metrics: [frechet_distance]}
"""


class Planned:
    """A graph, with its nodes by name."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = {node.name: node for node in graph.nodes}

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]


@pytest.fixture
def small() -> str:
    return SMALL


@pytest.fixture
def expand(tmp_path: Path) -> Callable[..., Planned]:
    """Plan a text: `swaps` are replaced in it, each once."""

    def expand(
        text: str = SMALL, *swaps: tuple[str, str], sets: Sequence[str] = (), cluster: Cluster | None = None
    ) -> Planned:
        for old, new in swaps:
            assert old in text, old
            text = text.replace(old, new, 1)
        path = tmp_path / "e.yaml"
        path.write_text(text)
        return Planned(plan.expand(load_experiment(path, sets=sets), cluster or Cluster()))

    return expand


@pytest.fixture
def refused(expand: Callable[..., Planned]) -> Callable[..., str]:
    """The error of a plan, without the folder of its file."""

    def refused(text: str = SMALL, *swaps: tuple[str, str], **options: object) -> str:
        with pytest.raises(ConfigError) as caught:
            expand(text, *swaps, **options)
        assert caught.value.exit_code == 2
        return "\n".join(line.split("/e.yaml", 1)[-1] for line in str(caught.value).splitlines())

    return refused
