"""Journals: torn lines, full disks, tokens, and readers that fold only what is new."""

import errno

import pytest

from jobs import files
from stx.coordinator import journal
from stx.coordinator.events import Facts, Opened, Paused, Policy, Surveyed, Troubled
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
    assert (state.token, reader.token) == (2, 2)
    assert state == replay(graph, journal.events(experiment))
    assert reader.refresh() is state


def test_lines_that_met_a_full_disk_are_written_later_and_never_glued_to_a_torn_one(experiment, monkeypatch):
    one = Journal(experiment, 1)
    one.append([opened(1)])
    real = files._write_all

    def torn(descriptor, data):
        real(descriptor, data[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write_all", torn)
        assert not one.append([Paused(1.0, "full")])
        assert not one.append([Troubled(2.0, "no answer")])
    assert one.append([Paused(3.0, "")])
    assert list(journal.events(experiment)) == [
        opened(1), Paused(1.0, "full"), Troubled(2.0, "no answer"), Paused(3.0, ""),
    ]  # fmt: skip
