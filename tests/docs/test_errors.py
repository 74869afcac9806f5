"""Everything a person can get wrong, through the command line: one clear error, exit code 2, nothing written; and
docs/errors.md, which is made of these answers.
"""

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from stx import cli

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "errors.md"
MICRO = (ROOT / "tests" / "integration" / "micro.yaml").read_text()
SECTIONS: dict[str, list[dict[str, Any]]] = yaml.safe_load((HERE / "errors.yaml").read_text())
CASES = [pytest.param(name, case, id=f"{name}: {case['wrong']}") for name, cases in SECTIONS.items() for case in cases]
WRITING = bool(os.environ.get("STX_WRITE_ERRORS"))

HEAD = """\
# What can go wrong, and what stx says then

Every row was given to the command line by [tests/docs/test_errors.py](../tests/docs/test_errors.py), and shows what it
answered: the place, what is wrong there, and what would be valid or what to do. Exit code 2; nothing is queued and
nothing is written. The cases are changes of [micro.yaml](../tests/integration/micro.yaml), called e.yaml; cluster files
are called c.yaml. `STX_WRITE_ERRORS=1 pytest tests/docs/test_errors.py` makes the page; without the variable the test
fails when an answer is not the one in its row.

What goes wrong while stages run, and what happens then, is in [reliability.md](reliability.md).
"""
TABLE = "| wrong | where | what stx says | valid, or what to do |\n|---|---|---|---|\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in: their paths in messages are relative."""
    monkeypatch.chdir(tmp_path)
    for name in ("STX_STORE", "STX_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STX_CORES", "2")
    monkeypatch.setenv("STX_SLOTS", str(tmp_path / ".slots"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


def arrange(case: Mapping[str, Any], folder: Path) -> list[str]:
    """Write the files of a case; its command line."""
    text = case.get("experiment", MICRO)
    if "replace" in case:
        old, new = case["replace"]
        assert old in text, old
        text = text.replace(old, new, 1)
    (folder / "e.yaml").write_text(text)
    for name, content in case.get("files", {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    for name, target in case.get("links", {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(folder / target)
    for name, mode in case.get("modes", {}).items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(int(mode, 8))
    arguments = list(case.get("run", ["submit", "e.yaml"]))
    if "cluster" in case:
        (folder / "c.yaml").write_text(case["cluster"])
        arguments += ["--cluster", "c.yaml"]
    return [*arguments, "--set", case["set"]] if "set" in case else arguments


def answer(arguments: list[str], *, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says before it exits with 2."""
    monkeypatch.setattr("sys.argv", ["stx", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    out, err = capsys.readouterr()
    assert exit_.value.code == 2, f"{out}\n{err}"
    assert out == ""
    assert "Traceback" not in err and "unexpected" not in err
    return err


def row(case: Mapping[str, Any], said: str) -> str:
    """The row of the page. An error is a place, below it what is wrong and what to do; of several it is the first."""
    first, *below = (said.partition("error: ")[2] or said).rstrip().splitlines()
    told = [line.strip() for line in itertools.takewhile(lambda line: line.startswith("  "), below)]
    if not told:  # a mistake in the command line itself, said by its parser
        command = " ".join(["stx", *case["run"]])
        cells = [case["wrong"], f"`{command}`", below[-1].removeprefix("Error: "), below[0]]
    else:
        cells = [case["wrong"], f"`{first}`", told[0], "; ".join(told[1:])]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


@pytest.fixture(scope="module")
def written() -> Iterator[dict[str, list[str]]]:
    """The rows of each section as they are answered; the page is made of them when it is asked for."""
    rows: dict[str, list[str]] = {section: [] for section in SECTIONS}
    yield rows
    if WRITING:
        tables = [f"## {section}\n\n{TABLE}" + "\n".join(rows[section]) + "\n" for section in SECTIONS]
        PAGE.write_text("\n".join([HEAD, *tables]))


@pytest.mark.parametrize(("section", "case"), CASES)
def test_a_mistake_gets_the_answer_of_its_row_in_docs_errors(section, case, folder, written, monkeypatch, capsys):
    arguments = arrange(case, folder)
    before = sorted(folder.rglob("*"))
    said = answer(arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert sorted(folder.rglob("*")) == before, "something was written"
    made = row(case, said.replace(f"{folder}/", ""))
    written[section].append(made)
    if not WRITING:
        assert made in PAGE.read_text().splitlines(), made


@pytest.mark.skipif(WRITING, reason="the page is being written")
def test_the_page_has_a_row_for_each_case_and_no_others():
    lines = PAGE.read_text().splitlines()
    told = [line for line in lines if line.startswith("| ") and line not in TABLE.splitlines()]
    assert [line.split(" | ")[0] for line in told] == [
        f"| {case['wrong']}" for cases in SECTIONS.values() for case in cases
    ]
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == list(SECTIONS)
