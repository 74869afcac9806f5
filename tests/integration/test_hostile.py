"""Symbolic links that somebody planted in a store: every verb names them, and nothing is written or removed through
them. Who may write into a store at all is tests/test_sharing.py; several users are test_users.py.
"""

import os
import shutil
from pathlib import Path

import pytest

from stx import cli, plan
from stx.config.cluster import load_cluster
from stx.config.load import load_experiment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FIRST = "name: cmd\nstages:\n  one: {kind: command, argv: [sh, -c, 'echo 1 > $STX_OUTPUT/a'], version: a}\n"
BOTH = FIRST + "  two: {kind: command, argv: [sh, -c, 'cat $STX_INPUT_X/a > $STX_OUTPUT/b'], inputs: {x: one}}\n"

# Where a link is planted in a store in which stage ONE is finished and TWO is still to be run; CODE is a digest.
PLANTED = [
    "store.json",
    "stages",
    "stages/ONE",
    "stages/ONE/attempts",
    "stages/ONE/artifact.json",
    "stages/ONE/payload",
    "stages/TWO",
    "stages/TWO/attempts",
    "stages/TWO/attempts/001",
    "stages/TWO/attempts/001.intent.json",
    "stages/TWO/wanted_by",
    "experiments",
    "experiments/cmd",
    "experiments/cmd/graph.json",
    "experiments/cmd/user.json",
    "experiments/cmd/lease",
    "experiments/cmd/lease/2",
    "experiments/cmd/events-2.jsonl",
    "experiments/cmd/inbox",
    "code",
    "code/CODE",
]
SAMPLE = {"store.json", "stages/ONE", "stages/TWO/attempts", "experiments/cmd", "experiments/cmd/inbox", "code/CODE"}


@pytest.fixture(scope="module")
def finished(new_stx):
    """A folder with e.yaml, of two stages, and a store in which the first is finished."""
    runner = new_stx("finished")
    (runner.folder / "e.yaml").write_text(FIRST)
    runner.run("submit", str(runner.folder / "e.yaml"))
    (runner.folder / "e.yaml").write_text(BOTH)
    return runner


@pytest.fixture
def place(finished, stx, monkeypatch) -> Path:
    """A copy of it, and its store in the environment."""
    shutil.copytree(finished.folder, stx.folder, dirs_exist_ok=True, copy_function=shutil.copy2)
    for name, value in {**stx.environment(), "STX_STORE": str(stx.store)}.items():
        monkeypatch.setenv(name, value)
    return stx.folder


def named(link: str, folder: Path) -> Path:
    """The path of a place in the list above."""
    nodes = plan.expand(load_experiment(folder / "e.yaml", sets=()), load_cluster(None)).nodes
    for node in nodes:
        link = link.replace(node.name.upper(), f"{node.spec.kind}-{node.key[:12]}")
    (code,) = (folder / "store" / "code").iterdir()
    return folder / "store" / link.replace("CODE", code.name)


def plant(link: Path, outside: Path) -> None:
    """Move what is there out of the store and leave a link to it; where nothing is yet, a link to something else."""
    outside.mkdir()
    target = outside / link.name
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.exists():
        link.rename(target)
    elif link.suffix:
        target.write_text("{}")
    else:
        target.mkdir()
    link.symlink_to(target)


def content(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def told(*words: str | Path, capsys, monkeypatch) -> tuple[int, str]:
    """A command in this process: its exit code and its words."""
    monkeypatch.setattr("sys.argv", ["stx", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert "unexpected" not in err, err
    return int(ended.value.code or 0), out + err


@pytest.mark.parametrize(
    "link", [pytest.param(one, marks=[] if one in SAMPLE else pytest.mark.full) for one in PLANTED]
)
def test_a_planted_link_is_named_and_nothing_is_done_through_it(link, place, tmp_path, capsys, monkeypatch):
    path, outside = named(link, place), tmp_path / "outside"
    plant(path, outside)
    before = content(outside)
    code, words = told("submit", place / "e.yaml", "--update", "--foreground", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2, words
    assert f"{path}\n" in words
    assert "is a symbolic link" in words or "others may have changed it" in words
    told("gc", "--yes", capsys=capsys, monkeypatch=monkeypatch)
    assert content(outside) == before


def test_a_payload_that_leads_out_of_the_store_is_not_read_by_a_worker(place, tmp_path, capsys, monkeypatch):
    path, outside = named("stages/ONE/payload/deep/a", place), tmp_path / "outside"
    plant(path, outside)
    code, words = told("submit", place / "e.yaml", "--update", "--foreground", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 3
    assert f"failed two: USER: {path}" in words
    assert "is a symbolic link" in words


def test_the_log_of_a_detached_coordinator_is_not_written_through_a_link(place, tmp_path, capsys, monkeypatch):
    path, outside = named("experiments/cmd/coordinator.log", place), tmp_path / "outside"
    plant(path, outside)
    code, words = told("submit", place / "e.yaml", "--update", "--detach", capsys=capsys, monkeypatch=monkeypatch)
    assert code == 2
    assert f"{path}\n  is a symbolic link" in words
    assert (outside / path.name).read_text() == "{}"


def test_files_that_are_replaced_or_made_are_never_written_through_a_link(place, tmp_path, capsys, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    links = [named(name, place) for name in ("experiments/cmd/.canary", "experiments/cmd/experiment.yaml")]
    links += [named("experiments/cmd/report", place) / name for name in ("report.md", "report.html")]
    for link in links:
        link.unlink(missing_ok=True)
        link.symlink_to(victim)
    _, words = told("submit", place / "e.yaml", "--update", "--foreground", capsys=capsys, monkeypatch=monkeypatch)
    assert victim.read_text() == "mine"
    _, more = told("report", "cmd", capsys=capsys, monkeypatch=monkeypatch)
    assert victim.read_text() == "mine", words + more


def test_a_store_that_is_itself_a_link_is_a_store(place, capsys, monkeypatch):
    (place / "store").rename(place / "elsewhere")
    (place / "store").symlink_to(place / "elsewhere")
    submit = ("submit", place / "e.yaml", "--update", "--foreground")
    assert told(*submit, capsys=capsys, monkeypatch=monkeypatch)[0] == 0
    for words in (("status",), ("logs", "two"), ("gc", "--yes"), ("gc", "--pin", "two"), ("report", "cmd"), submit):
        assert told(*words, capsys=capsys, monkeypatch=monkeypatch)[0] == 0
    assert os.readlink(place / "store") == str(place / "elsewhere")
