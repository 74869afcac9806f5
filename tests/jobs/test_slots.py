import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs import slots
from jobs.contract import until

HOLD = """
import sys, time
from pathlib import Path
from jobs import files, slots
claim = slots.Claim(Path(sys.argv[1]), cores=int(sys.argv[2]), gpus=int(sys.argv[3]), note="test")
while not claim.advance():
    time.sleep(0.005)
files.write(Path(sys.argv[4]), " ".join(claim.granted_gpus).encode())
time.sleep(3600)
"""


@dataclass(frozen=True)
class Holder:
    """A process that takes slots, says so in a file, and keeps them until it is killed."""

    process: subprocess.Popen[bytes]
    word: Path

    def granted(self) -> bool:
        return self.word.exists()

    def wait_granted(self) -> str:
        until(self.granted, "the slots are granted")
        return self.word.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Holders:
    """Starts them, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.live: list[Holder] = []

    def start(self, *, cores: int, gpus: int = 0) -> Holder:
        word = self.folder.with_name(f"granted-{len(self.live)}")
        command = [sys.executable, "-c", HOLD, str(self.folder), str(cores), str(gpus), str(word)]
        self.live.append(Holder(subprocess.Popen(command), word))
        return self.live[-1]


@pytest.fixture
def holders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Holders]:
    monkeypatch.setenv("STX_CORES", "2")
    monkeypatch.setenv("STX_GPUS", "2")
    monkeypatch.setenv("PYTHONPATH", str(Path(slots.__file__).parent.parent))
    found = Holders(tmp_path / "slots")
    yield found
    for holder in found.live:
        holder.kill()


def free(folder: Path) -> int:
    """How many core slots nobody holds."""
    count = 0
    for path in folder.glob("core-*"):
        with path.open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                count += 1
            except BlockingIOError:
                pass
    return count


def collected(folder: Path) -> bool:
    """Whether both core slots were made, and are held."""
    return len(list(folder.glob("core-*"))) == 2 and free(folder) == 0


def test_a_job_gets_all_its_cores_or_waits(holders: Holders) -> None:
    small = holders.start(cores=1)
    small.wait_granted()
    large = holders.start(cores=2)
    until(lambda: collected(holders.folder), "the large job has collected the other core")
    assert not large.granted()
    small.kill()
    large.wait_granted()


def test_small_jobs_cannot_starve_a_large_one(holders: Holders) -> None:
    """While the large one waits it holds the gate, so a later small one does not overtake it."""
    first = holders.start(cores=1)
    first.wait_granted()
    large = holders.start(cores=2)
    until(lambda: collected(holders.folder), "the large job has collected the other core")
    late = holders.start(cores=1)
    first.kill()
    large.wait_granted()
    assert not late.granted()
    large.kill()
    late.wait_granted()


def test_two_large_jobs_do_not_wait_for_each_others_half(holders: Holders) -> None:
    waiting = [holders.start(cores=2, gpus=2) for _ in range(3)]
    while waiting:
        until(lambda: any(holder.granted() for holder in waiting), "one of them has all it wants")
        done = [holder for holder in waiting if holder.granted()]
        assert len(done) == 1
        done[0].kill()
        waiting.remove(done[0])


def test_a_job_that_waits_for_a_gpu_does_not_hold_up_one_that_needs_none(holders: Holders) -> None:
    holders.start(cores=1, gpus=2).wait_granted()
    waiting = holders.start(cores=1, gpus=1)
    holders.start(cores=1).wait_granted()
    assert not waiting.granted()


def test_gpus_are_granted_by_name_and_never_twice(holders: Holders) -> None:
    names = [holders.start(cores=1, gpus=1).wait_granted() for _ in range(2)]
    assert sorted(names) == ["0", "1"]


def test_the_slots_of_a_killed_process_are_free_again(holders: Holders) -> None:
    holder = holders.start(cores=2)
    holder.wait_granted()
    assert free(holders.folder) == 0
    holder.kill()
    assert free(holders.folder) == 2


def test_a_child_keeps_the_slots_of_its_killed_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ranks of a killed supervisor still use their cores."""
    monkeypatch.setenv("STX_CORES", "2")
    claim = slots.Claim(tmp_path, cores=1, gpus=0)
    assert claim.advance()
    child = subprocess.Popen(["sleep", "3600"], close_fds=False)
    claim.release()
    assert free(tmp_path) == 0
    child.kill()
    child.wait()
    assert free(tmp_path) == 1


def test_a_folder_that_is_not_this_users_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / "slots"
    link.symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="set STX_SLOTS"):
        slots.Claim(link, cores=1, gpus=0).advance()


def test_a_folder_that_others_may_enter_is_refused_with_what_to_do(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    with pytest.raises(PermissionError, match=r"open to others \(mode 750\); chmod 700"):
        slots.check(tmp_path)
    tmp_path.chmod(0o700)
    slots.check(tmp_path)
    slots.check(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_cores_and_gpus_come_from_the_environment_if_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STX_CORES", raising=False)
    assert 1 <= slots.cores() <= len(os.sched_getaffinity(0))
    monkeypatch.setenv("STX_CORES", "7")
    assert slots.cores() == 7
    monkeypatch.delenv("STX_GPUS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8ab")
    assert slots.gpus() == ("3", "GPU-8ab")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert slots.gpus() == ()
    monkeypatch.setenv("STX_GPUS", "2")
    assert slots.gpus() == ("0", "1")
