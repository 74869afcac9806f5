import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import files

STEPS = ("open", "write", "fsync", "rename", "link", "unlink")


def in_child(act: Callable[[], object]) -> int:
    """Run in a forked child; its wait status. The child never returns into pytest."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def killed_at(step: int, act: Callable[[], object]) -> bool:
    """Run in a child that is killed before its step-th os call that matters. False: it did not come that far."""

    def run() -> None:
        count = 0

        def killer(function: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **kwargs: object) -> object:
                nonlocal count
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                return function(*args, **kwargs)

            return call

        for name in STEPS:
            setattr(os, name, killer(getattr(os, name)))
        act()

    status = in_child(run)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


def test_a_write_that_is_killed_anywhere_leaves_the_old_or_the_new_bytes(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    seen = []
    step = 0
    while True:
        files.write(path, b"old")
        killed = killed_at(step, lambda: files.write(path, b"new"))
        seen.append(path.read_bytes())
        if not killed:
            break
        step += 1
    assert set(seen) == {b"old", b"new"}
    assert seen == sorted(seen, reverse=True), "once the new bytes stand they stay"


def test_a_publish_that_is_killed_anywhere_leaves_nothing_or_all_and_can_be_repeated(tmp_path: Path) -> None:
    step = 0
    killed = True
    while killed:
        path = tmp_path / str(step)
        killed = killed_at(step, lambda path=path: files.publish(path, b"whole"))
        assert files.read(path) in (None, b"whole")
        ours = files.publish(path, b"whole")
        assert path.read_bytes() == b"whole"
        assert not (ours and not killed), "a finished publish is not repeated"
        step += 1
    assert step > 5


@pytest.mark.parametrize("publishers", [2, 8])
def test_of_any_number_of_publishers_exactly_one_wins(tmp_path: Path, publishers: int) -> None:
    """Real processes, released together by closing a pipe."""
    for number in range(10):
        path = tmp_path / str(number)
        read_end, write_end = os.pipe()
        pids = []
        for publisher in range(publishers):
            pid = os.fork()
            if pid == 0:
                try:
                    os.close(write_end)
                    os.read(read_end, 1)
                    os._exit(10 if files.publish(path, str(publisher).encode()) else 0)
                finally:
                    os._exit(1)
            pids.append(pid)
        os.close(read_end)
        os.close(write_end)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        assert sorted(codes) == [0] * (publishers - 1) + [10]
        assert path.read_bytes() == str(codes.index(10)).encode(), "the one that was told so is the one that stands"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")], "temp files are removed"


def test_a_second_publish_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    assert files.publish(path, b"first")
    assert not files.publish(path, b"second")
    assert path.read_bytes() == b"first"


def test_a_link_that_the_server_made_but_denied_counts_as_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS: the first request makes the link, its answer is lost, the repeated one says EEXIST. The link count tells."""
    link = os.link

    def lossy(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", lossy)
    assert files.publish(tmp_path / "claim", b"mine")


def test_a_file_that_somebody_else_linked_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    temp = files.write_temp(path, [b"mine"])
    path.write_bytes(b"theirs")
    assert not files.publish_file(temp, path)
    assert not temp.exists()
    assert path.read_bytes() == b"theirs"


def test_appends_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    lines = {str(number).encode() * 300 for number in range(4)}
    pids = []
    for line in sorted(lines):
        pid = os.fork()
        if pid == 0:
            try:
                for _ in range(10):
                    files.append(path, line)
                os._exit(0)
            finally:
                os._exit(1)
        pids.append(pid)
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    written = path.read_bytes().splitlines()
    assert len(written) == 40
    assert set(written) == lines


def test_a_write_that_fails_leaves_the_old_bytes_and_no_temp_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    files.write(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for act in (files.write, files.publish):
        with pytest.raises(OSError, match="No space left"):
            act(path if act is files.write else tmp_path / "other", b"new")
    assert os.listdir(tmp_path) == ["record.json"]
    assert path.read_bytes() == b"old"


def test_a_missing_file_reads_as_none(tmp_path: Path) -> None:
    assert files.read(tmp_path / "none") is None


def test_names_in_an_attempt_directory_do_not_collide() -> None:
    attempt = files.AttemptDir(Path("stages/x/attempts/007"))
    assert attempt.intent == Path("stages/x/attempts/007.intent.json")
    plain = [
        getattr(attempt, name)
        for name, value in vars(files.AttemptDir).items()
        if isinstance(value, property) and name != "intent"
    ]
    ranked = [name(rank) for rank in (0, 1, 10) for name in (attempt.outcome, attempt.alive, attempt.log)]
    assert len({*plain, *ranked}) == len(plain) + len(ranked)
    assert all(path.parent == attempt.path for path in plain + ranked)


WRITES: dict[str, Callable[[Path], object]] = {
    "write": lambda path: files.write(path, b"new"),
    "publish": lambda path: files.publish(path, b"new"),
    "payload": lambda path: files.write_temp(path, [b"new"]),
    "append": lambda path: files.append(path, b"new"),
}


@pytest.mark.parametrize("act", WRITES.values(), ids=WRITES)
def test_nothing_is_written_into_a_directory_that_is_a_planted_link(
    tmp_path: Path, act: Callable[[Path], object]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "attempts").symlink_to("elsewhere")
    target = tmp_path / "attempts" / "record"
    if act is WRITES["append"]:
        (tmp_path / "elsewhere" / "victim").write_bytes(b"old")
        (tmp_path / "elsewhere" / "record").symlink_to("victim")
    with pytest.raises(files.SymlinkError, match="symbolic link") as error:
        act(target)
    assert error.value.filename in {str(target), str(target.parent)}
    assert not [path for path in (tmp_path / "elsewhere").iterdir() if path.name not in {"victim", "record"}]
    assert all(path.read_bytes() == b"old" for path in (tmp_path / "elsewhere").iterdir())


def test_a_write_replaces_a_planted_link_and_leaves_what_it_points_to(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"old")
    (tmp_path / "record").symlink_to(victim)
    files.write(tmp_path / "record", b"new")
    assert victim.read_bytes() == b"old"
    assert not (tmp_path / "record").is_symlink()


def test_a_published_name_that_is_a_link_is_taken_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "claim").symlink_to("nowhere")
    assert not files.publish(tmp_path / "claim", b"mine")
    assert os.listdir(tmp_path) == ["claim"]


def test_links_pipes_and_folders_are_not_read_and_nothing_waits_for_them(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder"):
        with pytest.raises(OSError, match=rf"symbolic link.*{name}|not a regular file.*{name}"):
            files.read(tmp_path / name)


def test_a_directory_with_a_link_in_it_is_not_listed(tmp_path: Path) -> None:
    folder = tmp_path / "stages"
    assert files.names(folder) == []
    files.make_dir(folder)
    files.make_dir(folder)
    files.write(folder / "a", b"")
    assert files.names(folder) == ["a"]
    (folder / "b").symlink_to("/")
    with pytest.raises(files.SymlinkError, match=r"stages/b"):
        files.names(folder)
    (tmp_path / "link").symlink_to(folder)
    for act in (files.names, files.make_dir):
        with pytest.raises(files.SymlinkError, match=r"/link"):
            act(tmp_path / "link")


@pytest.mark.parametrize(("mode", "umask", "made"), [(0o2770, 0o077, 0o660), (0o2775, 0o022, 0o664)])
def test_in_a_directory_shared_with_a_group_files_are_made_for_the_group(
    tmp_path: Path, mode: int, umask: int, made: int
) -> None:
    tmp_path.chmod(mode)

    def act() -> None:
        os.umask(umask)
        files.share(tmp_path)
        files.write(tmp_path / "record", b"")
        (tmp_path / "folder").mkdir()

    assert in_child(act) == 0
    assert stat.S_IMODE((tmp_path / "record").stat().st_mode) == made
    assert files.is_shared((tmp_path / "folder").stat().st_mode)


@pytest.mark.parametrize("mode", [0o775, 0o2755, 0o700])
def test_elsewhere_the_umask_stays(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)

    def act() -> None:
        os.umask(0o027)
        files.share(tmp_path)
        files.write(tmp_path / "record", b"")

    assert in_child(act) == 0
    assert stat.S_IMODE((tmp_path / "record").stat().st_mode) == 0o640
