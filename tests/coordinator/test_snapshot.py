"""The code that attempts run from."""

import os
import stat
import subprocess
import sys

import pytest

from stx.coordinator import snapshot
from stx.coordinator.snapshot import science_digest
from stx.errors import StoreError
from stx.paths import Store


def test_a_snapshot_holds_what_a_worker_imports_and_is_made_once(tmp_path):
    store = Store(tmp_path)
    code = snapshot.snapshot(store)
    assert code.path == store.code(code.digest)
    assert (code.path / "stx" / "errors.py").exists()
    assert (code.path / "jobs" / "exec.py").exists()
    assert (code.path / "stx" / "config" / "clusters" / "local.yaml").exists()
    inode = code.path.stat().st_ino
    assert snapshot.snapshot(store) == code
    assert code.path.stat().st_ino == inode
    assert [path.name for path in code.path.parent.iterdir()] == [code.digest]


def test_a_process_that_runs_from_the_snapshot_makes_the_same_one(tmp_path):
    code = snapshot.snapshot(Store(tmp_path))
    program = "import sys, stx; from pathlib import Path; assert stx.__file__.startswith(sys.argv[2]), stx.__file__\n"
    program += "from stx.coordinator.snapshot import snapshot; from stx.paths import Store\n"
    program += "print(snapshot(Store(Path(sys.argv[1]))).digest)"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(code.path)],
        env={"PYTHONPATH": str(code.path)}, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == code.digest


def test_whoever_runs_from_a_copy_by_a_umask_that_lets_the_group_write_leaves_it_usable(tmp_path):
    code = snapshot.snapshot(Store(tmp_path))
    environment = {"PYTHONPATH": str(code.path)}  # without the tests' PYTHONDONTWRITEBYTECODE
    subprocess.run(
        [sys.executable, "-c", "import stx.stages.train"], env=environment, cwd=tmp_path, umask=2, check=True
    )
    assert list((code.path / "stx" / "stages" / "__pycache__").glob("train.*.pyc"))
    assert snapshot.snapshot(Store(tmp_path)) == code


def test_a_damaged_copy_is_named(tmp_path):
    code = snapshot.snapshot(Store(tmp_path))
    (code.path / "stx" / "errors.py").write_text("")
    with pytest.raises(StoreError, match=r"stx/errors\.py"):
        snapshot.snapshot(Store(tmp_path))


def test_a_copy_that_others_could_have_changed_is_refused_by_name(tmp_path):
    code = snapshot.snapshot(Store(tmp_path))
    for name, spoil in {
        "stx/errors.py": lambda path: path.chmod(0o664),
        "stx/model": lambda path: path.chmod(0o757),
        "stx/__pycache__/errors.cpython-311.pyc": lambda path: path.symlink_to("/etc/passwd"),
    }.items():
        path = code.path / name
        spoil(path)
        with pytest.raises(StoreError, match="others may have changed it") as error:
            snapshot.snapshot(Store(tmp_path))
        assert error.value.where == str(path)
        assert f"remove {code.path}" in error.value.hint
        path.unlink() if path.is_symlink() else path.chmod(0o755)
    snapshot.snapshot(Store(tmp_path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
def test_everybody_runs_from_a_copy_of_his_own(tmp_path):
    first = snapshot.snapshot(Store(tmp_path))
    os.chown(first.path, 4242, 4242)
    ours = snapshot.snapshot(Store(tmp_path))
    assert ours.path == first.path.with_name(f"{first.digest}-{os.geteuid()}")
    assert ours.digest == first.digest == snapshot.digest_of(ours.path)
    os.chown(ours.path / "stx" / "cli.py", 4242, 4242)
    with pytest.raises(StoreError, match="of user 4242"):
        snapshot.snapshot(Store(tmp_path))


def test_where_a_group_may_write_copies_cannot_be_renamed_away_nor_changed(tmp_path):
    (tmp_path / "code").mkdir(mode=0o700)
    (tmp_path / "code").chmod(0o2775)
    umask = os.umask(0o002)
    try:
        code = snapshot.snapshot(Store(tmp_path))
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "code").stat().st_mode) == 0o3775
    inside = [code.path, *code.path.rglob("*")]
    assert not [path for path in inside if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)]


def test_the_science_digest_sees_the_science_and_nothing_else():
    hashes = {
        "stx/model/sit.py": "1",
        "stx/times.py": "1",
        "stx/report/tables.py": "1",
        "jobs/exec.py": "1",
        "stx/cli.py": "1",
    }
    first = science_digest(hashes)
    assert science_digest(hashes | {"stx/report/tables.py": "2", "jobs/exec.py": "2", "stx/cli.py": "2"}) == first
    assert science_digest(hashes | {"stx/model/sit.py": "2"}) != first
    assert science_digest(hashes | {"stx/times.py": "2"}) != first, "it says how t is drawn"


def test_no_torch_is_imported_for_it():
    program = "import sys, stx.coordinator.snapshot, stx.coordinator.loop; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
