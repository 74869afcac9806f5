"""What `stx submit` says before it begins."""

import stat
from pathlib import Path

import pytest

from stx.errors import StoreError
from stx.verbs import submit
from stx.verbs.wishes import Wishes

MICRO = Path(__file__).parents[1] / "integration" / "micro.yaml"


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_store_whose_place_others_may_take_is_warned_of_once(tmp_path: Path, monkeypatch, capsys, mode: int) -> None:
    """Submit goes on: it ends here where it would make the store."""

    def end(store: object) -> None:
        raise StoreError("the test ends here")

    monkeypatch.setattr(submit, "check_store", end)
    monkeypatch.setenv("STX_SLOTS", str(tmp_path / ".slots"))
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    wishes = Wishes(MICRO, (), None, str(tmp_path / "open" / "store"), False, False, False, False)
    with pytest.raises(StoreError, match="the test ends here"):
        submit.run(wishes)
    said = capsys.readouterr().err
    assert said.count("another store in its place") == (0 if mode & stat.S_ISVTX else 1)
