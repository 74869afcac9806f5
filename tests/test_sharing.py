"""Who may write into a store: by real modes, links and users."""

import os
import stat
from pathlib import Path

import pytest

from stx import records, sharing
from stx.errors import ConfigError, StoreError
from stx.paths import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    place = Store(tmp_path / "store")
    place.stages.mkdir(parents=True)
    return place


def refused(store: Store) -> StoreError:
    with pytest.raises(StoreError) as error:
        sharing.open_store(store)
    return error.value


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o703])
def test_a_store_that_anybody_may_write_into_is_refused_with_the_command_that_mends_it(store: Store, mode: int) -> None:
    store.root.chmod(mode)
    error = refused(store)
    assert error.where == str(store.root)
    assert f"mode {mode:o}" in error.what
    assert error.hint is not None
    assert f"chmod o-w {store.root}" in error.hint
    store.root.chmod(stat.S_IMODE(store.root.stat().st_mode) & ~stat.S_IWOTH)
    sharing.open_store(store)


def test_a_folder_above_it_that_anybody_may_write_into_is_told_and_not_refused(tmp_path: Path) -> None:
    below = Store(tmp_path / "a" / "b" / "new" / "store")
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
        sharing.open_store(below)
        told = sharing.exposed(below)
        assert told is not None
        assert f"{folder} has mode 777" in told[0]
        assert f"chmod +t {folder}" in told[1]
        folder.chmod(0o1777)
        assert sharing.exposed(below) is None, "sticky, as /tmp is"


def test_the_stores_own_directory_may_be_a_link_and_nothing_in_it(store: Store, tmp_path: Path) -> None:
    (tmp_path / "scratch").symlink_to(store.root)
    sharing.open_store(Store(tmp_path / "scratch"))
    (store.root / "code").symlink_to(tmp_path)
    error = refused(Store(tmp_path / "scratch"))
    assert error.where == str(store.root / "code")
    assert "symbolic link" in error.what


def test_a_folder_of_the_store_that_anybody_may_write_into_is_refused(store: Store) -> None:
    store.stages.chmod(0o757)
    assert refused(store).where == str(store.stages)


@pytest.mark.parametrize("link", ["stages/train-0", "stages/train-0/payload", "stages/train-0/checkpoints/8-001/x"])
def test_a_worker_looks_for_links_wherever_it_reads_and_writes(store: Store, tmp_path: Path, link: str) -> None:
    stage = store.stage("train", "0")
    (stage.checkpoints / "8-001").mkdir(parents=True)
    stage.refuse_links()
    path = store.root / link
    if path == stage.path:
        path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path)
    with pytest.raises(StoreError, match="symbolic link") as error:
        stage.refuse_links()
    assert error.value.where == str(path)


def test_an_experiment_belongs_to_who_claimed_it_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = store.experiment("a")
    experiment.path.mkdir(parents=True)
    sharing.claim(experiment)
    assert sharing.holder(experiment) == ""
    sharing.refuse_other(experiment, hint="")
    records.write(experiment.user, {"uid": os.geteuid() + 1, "name": "alice"})
    sharing.claim(experiment)
    assert sharing.holder(experiment) == "alice"
    with pytest.raises(ConfigError, match="this experiment is alice's"):
        sharing.refuse_other(experiment, hint="")


def test_users_and_groups_without_a_name_are_called_by_their_number() -> None:
    assert sharing.user_name(4242424) == "user 4242424"
    assert sharing.group_name(4242424) == "4242424"
    assert sharing.user_name(os.geteuid()) == sharing.me()["name"]


def test_our_number_is_the_one_that_the_file_server_gives_us(tmp_path: Path) -> None:
    assert sharing.my_number(tmp_path) == tmp_path.stat().st_uid
    assert list(tmp_path.iterdir()) == []
