"""Every command in the README and in docs/ is run as it stands there, page by page, in a folder that has what pages
speak of: my.yaml, an experiment called my-experiment that has been finished once, and my-cluster.yaml.

A command is a line of a block marked `sh`. The few that make an environment or take minutes are run by other tests.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MICRO = ROOT / "tests" / "integration" / "micro.yaml"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CLUSTER = "launcher: local\npoll_s: 0.2\nlimits: {queued: 2, running: 1000}\n"
# begins of commands, and who runs them
ELSEWHERE = {
    "./tools/quickstart": ROOT / "tests" / "integration" / "test_quickstart.py",
    "./tools/test": ROOT / ".ci" / "run",
    "tools/test": ROOT / ".ci" / "run",
    "tools/check": ROOT / "tools" / "test",
    "python tools/bench/": ROOT / "tests" / "integration" / "test_bench.py",
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def commands(page: Path) -> list[str]:
    """The commands of a page; one that ends with a backslash goes on in the next line."""
    blocks = [text for language, text in BLOCK.findall(page.read_text()) if language == "sh"]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def elsewhere(command: str) -> Path | None:
    """Who runs a command that is not run here."""
    return next((test for begin, test in ELSEWHERE.items() if command.startswith(begin)), None)


@pytest.fixture(scope="module")
def folder(micro, tmp_path_factory) -> Path:
    """The folder that the pages speak of."""
    place = tmp_path_factory.mktemp("docs")
    shutil.copytree(micro.store, place / "stx-store", ignore=shutil.ignore_patterns("experiments", "wanted_by"))
    (place / "stx-store" / "experiments").mkdir()
    (place / "my.yaml").write_text(MICRO.read_text().replace("name: micro", "name: my-experiment"))
    (place / "my-cluster.yaml").write_text(CLUSTER)
    (place / "configs").symlink_to(ROOT / "configs")
    (place / "stx").write_text(f'#!/bin/sh\nexec {sys.executable} -m stx.cli "$@"\n')
    (place / "stx").chmod(0o755)
    run(place, "stx submit my.yaml", micro=micro)
    return place


def run(place: Path, command: str, *, micro) -> None:
    own = {"STX_STORE": "", "PATH": f"{place}:{os.environ['PATH']}", "NO_COLOR": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=place,
        env=micro.environment(own),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_runs(page, folder, micro):
    for command in commands(page):
        if elsewhere(command) is None:
            run(folder, command, micro=micro)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_command_of_a_page_hides_in_another_kind_of_block(page):
    others = [text for language, text in BLOCK.findall(page.read_text()) if language != "sh"]
    hidden = [line for text in others for line in text.splitlines() if re.match(r"\s*(stx|\$|\./tools|python) ", line)]
    assert not hidden


def test_a_command_that_is_not_run_here_is_run_by_a_test_that_exists():
    left = [(command, elsewhere(command)) for page in PAGES for command in commands(page)]
    assert all(test.exists() for _, test in left if test is not None)
