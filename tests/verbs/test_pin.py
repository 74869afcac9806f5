"""What `stx gc --pin` and `--unpin` answer to names that are none; what a pin keeps: coordinator/test_garbage.py."""

from pathlib import Path

import pytest

from stx import records
from stx.errors import ConfigError
from stx.paths import Store
from stx.spec import Graph, Node, StageSpec
from stx.verbs import pin

MADE = Node("made", "made", StageSpec("command", 1, {"name": "made"}))
LATER = Node("later", "later", StageSpec("command", 1, {"name": "later"}))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.experiment("one").path.mkdir(parents=True)
    records.write(store.experiment("one").graph, Graph("one", (MADE, LATER)).dump())
    store.stage("command", MADE.key).path.mkdir(parents=True)
    return store


def ask(store: Store, **wish: str) -> str:
    with pytest.raises(ConfigError) as caught:
        pin.run(store=str(store.root), others=False, **({"pin": None, "unpin": None} | wish))
    return str(caught.value)


def test_a_name_that_is_none_is_answered_with_names_of_stages(store: Store) -> None:
    told = ask(store, pin="mode")
    assert 'did you mean "made"? known: one, made, later' in told and "command-" not in told


def test_what_has_not_begun_or_is_an_experiment_cannot_be_pinned(store: Store) -> None:
    assert '"later" has not begun' in ask(store, pin="later")
    assert "one stage is pinned at a time: one/STAGE" in ask(store, pin="one")


def test_what_is_not_pinned_is_told_with_what_is(store: Store) -> None:
    assert ask(store, unpin="made").endswith('"made" is not pinned\n  nothing is pinned')
    pin.run(store=str(store.root), pin="made", unpin=None, others=False)
    assert f"pinned: command-{MADE.key[:12]}" in ask(store, unpin="later")
    pin.run(store=str(store.root), pin=None, unpin="one/made", others=False)
    assert "nothing is pinned" in ask(store, unpin="made")
