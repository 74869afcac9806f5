"""The code that attempts run from."""

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


def test_a_damaged_copy_is_named(tmp_path):
    code = snapshot.snapshot(Store(tmp_path))
    (code.path / "stx" / "errors.py").write_text("")
    with pytest.raises(StoreError, match=r"stx/errors\.py"):
        snapshot.snapshot(Store(tmp_path))


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
