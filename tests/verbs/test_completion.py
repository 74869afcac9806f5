"""Completion: what is offered, and that real shells take it."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from stx import cli, records
from stx.paths import Store
from stx.spec import Graph, Node, StageSpec
from stx.verbs import completion

GROUP = typer.main.get_command(cli.app)


def node(name: str, kind: str = "train") -> Node:
    return Node(name, name.split(":")[0], StageSpec(kind, 1, {"name": name}))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Experiment `small` with a sweep of three, `large` with one of a thousand."""
    store = Store(tmp_path / "my store")
    points = tuple(node(f"many:seed={seed}") for seed in range(1000))
    small = (node("latents", "latents"), *(node(f"run:seed={seed}") for seed in range(3)), node("odd:x=[0, 1]"))
    for graph in (Graph("small", small), Graph("large", points)):
        store.experiment(graph.experiment).path.mkdir(parents=True)
        records.write(store.experiment(graph.experiment).graph, graph.dump())
    monkeypatch.setenv("STX_STORE", str(store.root))
    return store


def offered(line: str) -> list[str]:
    return [one.partition("\t")[0] or one for one in completion.complete(GROUP, line)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("stx stat", ["status"]),
        ("stx status --so", ["--sort"]),
        ("stx status --sort ", ["eta", "name", "rate", "state"]),
        ("stx status --sort=r", ["--sort=rate"]),
        ("stx status --state FAILED,ru", ["FAILED,ruNNING"]),
        ("stx status sm", ["small"]),
        ("stx status ru", ["run", "run:seed=0", "run:seed=1", "run:seed=2"]),
        ("stx show ru", ["run:seed=0", "run:seed=1", "run:seed=2"]),
        ("stx show small/ru", ["small/run:seed=0", "small/run:seed=1", "small/run:seed=2"]),
        ("stx show 'ru", ["run:seed=0", "run:seed=1", "run:seed=2"]),
        ("stx show man", ["many"]),
        ("stx show many:seed=99", ["many:seed=99", *(f"many:seed=99{digit}" for digit in range(10))]),
        ("stx logs --rank 0 lat", ["latents"]),
        ("stx show latents --against lat", ["latents"]),
        ("stx show latents ", []),
        ("STX_STORE=x OMP=1 stx report s", ["small"]),
        ("stx report --store /nowhere s", []),
        ("stx submit ", ["\tfiles"]),
        ("stx plan e.yaml --cluster lo", ["\tfiles", "local"]),
        ("stx status --store ", ["\tfolders"]),
        ("stx nonsense ", []),
        ("stx status --nonsense sm", ["small"]),
        ('stx show "lat', ["latents"]),
    ],
)
def test_what_is_offered(store: Store, line: str, expected: list[str]) -> None:
    assert offered(line) == expected


def test_a_damaged_graph_completes_nothing(store: Store) -> None:
    store.experiment("small").graph.write_text("{")
    assert offered("stx show lat") == []


def test_every_parameter_that_completes_is_one_of_the_command_line() -> None:
    known = {name for command in GROUP.commands.values() for one in command.params for name in (one.name, *one.opts)}
    assert set(completion.VALUES) <= known


def test_answer_imports_nothing_that_makes_a_person_wait(store: Store) -> None:
    program = (
        "import sys; sys.argv[1:] = ['complete', '--', 'stx show lat']; from stx import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'yaml', 'numpy', 'rich', 'matplotlib', 'stx.config', 'stx.plan'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "latents\tlatents of small\n"


def test_unknown_shell_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(completion.ConfigError, match="known: bash, fish, zsh"):
        completion.script("tcsh")


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """A folder with a program called stx."""
    place = tmp_path / "bin"
    place.mkdir()
    (place / "stx").write_text(f'#!/bin/sh\nexec {sys.executable} -m stx.cli "$@"\n')
    (place / "stx").chmod(0o755)
    return place


SHELLS = {
    "bash": (("bash", "--norc", "--noprofile", "-i"), 'eval "$(stx completion bash)"'),
    "zsh": (("zsh", "-f", "-i"), 'autoload -U compinit; compinit -D -u; eval "$(stx completion zsh)"'),
    "fish": (("fish", "--no-config", "-i"), "stx completion fish | source"),
}


@pytest.mark.parametrize("shell", ["bash", pytest.param("zsh", marks=pytest.mark.slow)])
def test_a_real_shell_completes_verbs_names_and_points(
    terminal: Callable[..., Any], store: Store, command: Path, shell: str
) -> None:
    argv, script = SHELLS[shell]
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    path = f"{command}:/usr/bin:/bin"
    one = terminal(argv=argv, columns=100, PS1="READY> ", PROMPT="READY> ", PATH=path, STX_STORE=str(store.root))
    one.says("READY>")
    one.type(f"{script}; echo LOADED\n")
    one.until(lambda: "\nLOADED" in one.text)
    one.type("stx sta\t")
    one.says("> stx status")
    one.type("lat\t")
    one.says("> stx status latents")
    one.type("\x15stx show ru\t")
    one.says("stx show run:seed=")
    one.type("1\t")
    one.says("> stx show run:seed=1")
    one.type("\x15stx logs small/od\t")
    one.says("small/odd:x=\\[0\\,\\ 1\\]" if shell == "bash" else "small/odd:x=\\[0,\\ 1\\]")
    one.type("\x15exit\n")


@pytest.mark.slow
def test_fish_completes(store: Store, command: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish on this machine")
    words = "stx completion fish | source; complete -C 'stx show ru'"
    env = {"PATH": f"{command}:/usr/bin:/bin", "STX_STORE": str(store.root), "HOME": str(command)}
    env["PYTHONPATH"] = str(Path(cli.__file__).parents[1])
    done = subprocess.run(["fish", "--no-config", "-c", words], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"run:seed={seed}\ttrain of small" for seed in range(3)]
