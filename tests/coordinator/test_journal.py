"""Journals: torn lines, full disks, tokens, and readers that fold only what is new."""

import errno
import os
from dataclasses import replace

import pytest

from jobs import files
from stx.coordinator import journal
from stx.coordinator.events import Crashed, Facts, Opened, Paused, Policy, Surveyed, Troubled
from stx.coordinator.journal import Journal, Reader
from stx.coordinator.state import Status
from stx.coordinator.transitions import replay
from stx.errors import StoreError
from stx.paths import ExperimentDir

POLICY = Policy(retries={}, backoff_s=(0.0,), queued=1, running=1, stop_lead_s=30.0)


@pytest.fixture
def experiment(tmp_path):
    return ExperimentDir(tmp_path)


def opened(token):
    return Opened(0.0, "clock", token, POLICY, {})


def test_what_is_appended_is_read_in_the_order_of_tokens(experiment):
    Journal(experiment, 2).append([Troubled(3.0, "second")])
    first = Journal(experiment, 1)
    first.append([opened(1)])
    first.append([Paused(1.0, "full"), Paused(2.0, "")])
    assert list(journal.events(experiment)) == [
        opened(1), Paused(1.0, "full"), Paused(2.0, ""), Troubled(3.0, "second"),
    ]  # fmt: skip


def test_an_unterminated_last_line_is_ignored_whatever_its_length(experiment):
    Journal(experiment, 1).append([opened(1), Paused(1.0, "full")])
    data = experiment.events(1).read_bytes()
    whole = data.rindex(b"\n", 0, -1) + 1
    for length in range(whole, len(data)):
        experiment.events(1).write_bytes(data[:length])
        assert list(journal.events(experiment)) == [opened(1)]


def test_a_damaged_line_is_named(experiment):
    experiment.events(1).write_bytes(b'{"at": 1}\n')
    with pytest.raises(StoreError, match="did not write"):
        list(journal.events(experiment))


@pytest.mark.parametrize(
    "line",
    [b'{"at": 1}', b"{", b'{"at": 1, "event": {"type": "no such event"}}'],
    ids=["no event", "no JSON", "unknown"],
)
def test_a_damaged_line_is_told_by_its_number(experiment, sim, line):
    Journal(experiment, 1).append([opened(1), Paused(1.0, "full")])
    reader = Reader(experiment, sim.single("a"))
    reader.refresh()
    with experiment.events(1).open("ab") as stream:
        stream.write(line + b"\n")
    for read in (lambda: list(journal.events(experiment)), reader.refresh):
        with pytest.raises(StoreError) as error:
            read()
        assert error.value.where == f"{experiment.events(1)}:3"


def test_what_a_failed_append_left_is_not_cut_off_in_the_file_behind_a_link(experiment, monkeypatch, tmp_path):
    one = Journal(experiment, 1)
    one.append([opened(1)])

    def torn(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    precious = tmp_path / "precious"
    precious.write_bytes(b"x" * 100_000)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", torn)
        patch.setattr(os, "ftruncate", torn)  # so that the cut is still to come
        one.append([Paused(1.0, "full")])
    experiment.events(1).unlink()
    experiment.events(1).symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"):
        one.append([Paused(2.0, "")])
    assert precious.stat().st_size == 100_000


def test_a_reader_folds_only_what_is_new_and_equals_a_replay(experiment, sim):
    graph = sim.single("a")
    key = graph.nodes[0].key
    reader, first = Reader(experiment, graph), Journal(experiment, 1)
    assert reader.refresh().stage(key).status is Status.WAITING
    assert reader.at is None
    first.append([opened(1)])
    assert reader.refresh().stage(key).status is Status.READY
    first.append([Surveyed(1.0, key, Facts(artifact=True))])
    with experiment.events(1).open("ab") as stream:
        stream.write(b'{"at": 5, "ev')
    assert reader.refresh().stage(key).status is Status.DONE
    Journal(experiment, 2).append([opened(2)])
    state = reader.refresh()
    assert state.token == 2
    assert state == replay(graph, journal.events(experiment))
    assert reader.refresh() is state


def test_lines_that_met_a_full_disk_are_written_later_and_never_glued_to_a_torn_one(experiment, monkeypatch):
    one = Journal(experiment, 1)
    one.append([opened(1)])
    real = files.write_all

    def torn(descriptor, data):
        real(descriptor, data[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", torn)
        assert not one.append([Paused(1.0, "full")])
        assert not one.append([Troubled(2.0, "no answer")])
    assert one.append([Paused(3.0, "")])
    assert list(journal.events(experiment)) == [
        opened(1), Paused(1.0, "full"), Troubled(2.0, "no answer"), Paused(3.0, ""),
    ]  # fmt: skip


def test_the_last_words_after_a_broken_write_are_not_glued_to_it(experiment, monkeypatch):
    """An append that fails half-way ends the coordinator, which then leaves word of that in the same file."""
    one = Journal(experiment, 1)
    one.append([opened(1)])
    real = files.write_all

    def torn(descriptor, data):
        real(descriptor, data[:7])
        raise OSError(errno.EIO, "Input/output error")

    def broken(path, length):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", torn)
        with pytest.raises(OSError, match="Input/output"):
            one.append([Troubled(1.0, "no answer")])
        patch.setattr(os, "ftruncate", broken)
        with pytest.raises(OSError, match="Input/output"):
            one.append([Troubled(2.0, "again")])
    assert one.append([Crashed(3.0, "broken")])
    assert list(journal.events(experiment)) == [
        opened(1), Troubled(1.0, "no answer"), Troubled(2.0, "again"), Crashed(3.0, "broken"),
    ]  # fmt: skip


def test_what_a_coordinator_writes_after_another_took_over_counts_for_nothing(experiment, sim):
    graph = sim.single("a")
    key = graph.nodes[0].key
    old = Journal(experiment, 1)
    old.append([opened(1), Troubled(1.0, "no answer")])
    (read,) = journal.parts(experiment)
    behind, ahead = Reader(experiment, graph), Reader(experiment, graph)
    ahead.refresh()
    old.append([Surveyed(2.0, key, Facts(artifact=True))])
    assert ahead.refresh().stage(key).status is Status.DONE, "it was believed while nobody had taken over"
    Journal(experiment, 3).append([replace(opened(3), before=(read.token, read.length))])
    Journal(experiment, 2).append([opened(2), Paused(1.0, "one that took the lease and was overtaken at once")])
    old.append([Troubled(9.0, "much later")])
    told = list(journal.events(experiment))
    assert [type(event).__name__ for event in told] == ["Opened", "Troubled", "Opened"]
    for reader in (behind, ahead, Reader(experiment, graph)):
        assert reader.refresh() == replay(graph, told)


def test_the_end_of_a_journal_is_found_whatever_the_length_of_its_lines(experiment, monkeypatch):
    monkeypatch.setattr(journal, "BLOCK_BYTES", 16)
    one = Journal(experiment, 1)
    one.append([opened(1)])
    for length in range(40):
        one.append([Troubled(1.0, "x" * length)])
        (part,) = journal.parts(experiment)
        assert part.length == experiment.events(1).stat().st_size


def test_an_opening_says_only_what_is_not_in_the_journal_yet(world, sim):
    """With `submit --once` every few minutes, a journal that repeats 10,000 stages grows without end."""
    graph = sim.small_graph("a")
    coordinator = world.start(graph)
    world.finish()
    expected = dict(sim.statuses(coordinator))
    gone = world.store.stage("freeze", graph.nodes[2].key)
    for _ in range(3):
        world.leave("a")
        coordinator = world.start(graph)
        assert sim.statuses(coordinator) == expected
    assert last_opened(world).facts == {}
    world.leave("a")
    gone.path.rename(world.folder / "moved-away")
    coordinator = world.start(graph)
    assert sim.statuses(coordinator)["teacher"] == "READY"
    assert set(last_opened(world).facts) == {graph.nodes[2].key}
    assert replay(graph, journal.events(world.store.experiment("a"))) == coordinator.state


def last_opened(world):
    told = journal.events(world.store.experiment("a"))
    return [event for event in told if isinstance(event, Opened)][-1]
