"""The supervisor of a node on real Ray: it comes up, it says clearly why it does not, and it leaves nobody behind."""

import contextlib
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.launchers.ray.up import answers, shelter
from jobs.launchers.ray.up.folder import Step, ask_to_end
from jobs.spec import Cause
from tests.jobs.ray_up.conftest import PATIENCE_S, has_failed, is_up

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.sampled(seconds=30)
def test_two_nodes_come_up_are_counted_and_leave_nothing_when_somebody_wants_them_to_end(make):
    nodes = make(nodes=2)
    nodes.start()
    nodes.until(is_up(nodes), "both nodes are up")
    found = nodes.record
    assert found.nodes == 2 and found.token == nodes.asked.token
    alive = answers.alive(found.dashboard, Path(found.token))
    assert {node.name for node in alive} == {"n1", "n2"} and [node.name for node in alive if node.is_head] == ["n1"]
    assert all(node.total["CPU"] == 1 for node in alive)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{found.dashboard}/api/v0/nodes", timeout=10)
    ask_to_end(nodes.folder, "a person wanted it")
    assert nodes.until_ended() == [0, 0], nodes.words()
    assert nodes.record is None and nodes.over.words == "a person wanted it" and nodes.over.cause is None
    assert [nodes.report(number).step for number in (0, 1)] == [Step.ENDED, Step.ENDED]
    assert nodes.left() == [] and len(nodes.seen) > 8
    assert list(shelter.base(nodes.root).iterdir()) == []


@pytest.mark.sampled(seconds=25)
def test_a_node_that_never_joins_ends_the_cluster_with_its_number_and_one_that_comes_too_late_leaves(make):
    nodes = make(nodes=2, join_s=3.0)
    nodes.start(0)
    nodes.until(has_failed(nodes, 0), "the head gave up")
    assert nodes.until_ended() == [1]
    assert nodes.over.cause is Cause.SETUP
    assert "1 of 2 nodes joined within 3 s: node 1 never began" in nodes.over.words
    assert nodes.record is None and nodes.left() == []
    nodes.start(1)
    assert nodes.until_ended() == [1, 0]
    assert "the cluster is over: node n1: 1 of 2 nodes joined" in nodes.report(1).words
    assert nodes.left() == []


def test_a_node_whose_head_never_answers_says_so(make):
    nodes = make(nodes=2, start_s=0.5, join_s=0.5)
    nodes.start(1)
    assert nodes.until_ended() == [1]
    assert nodes.over.words == "node n2: the head did not say where it is within 1 s"
    assert nodes.over.cause is Cause.SETUP


def test_a_head_whose_words_cannot_be_read_is_waited_for_as_one_that_says_nothing(make):
    nodes = make(nodes=2, start_s=0.5, join_s=0.5)
    nodes.folder.head.write_text('{"cut')
    nodes.start(1)
    assert nodes.until_ended() == [1]
    assert nodes.over.words == "node n2: the head did not say where it is within 1 s"


@pytest.mark.sampled(seconds=30)
def test_what_a_store_does_not_tell_ends_no_cluster_and_keeps_nobody_from_its_end(make):
    """A folder where the second node's words should be can neither be read nor replaced."""
    nodes = make(nodes=2, stop_lead_s=3.0)
    nodes.folder.node(1).mkdir()
    nodes.start()
    nodes.until(is_up(nodes), "both nodes are up")
    Path(nodes.asked.record).write_text('{"cut')
    ask_to_end(nodes.folder, "a person wanted it")
    assert nodes.until_ended() == [0, 0], nodes.words()
    assert nodes.over.words == "a person wanted it" and nodes.over.cause is None
    assert nodes.report(0).step is Step.ENDED and not Path(nodes.asked.token).exists()
    assert nodes.left() == []


def test_the_port_of_the_dashboard_that_somebody_has_is_named(make):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        nodes = make(dashboard_port=port)
        nodes.start()
        assert nodes.until_ended() == [1]
    assert f"port {port} is taken" in nodes.over.words and nodes.over.cause is Cause.SETUP


@pytest.mark.sampled(seconds=40)
def test_a_port_that_somebody_takes_at_the_last_moment_costs_a_try_and_not_the_cluster(make, tmp_path):
    """The node believes that a taken port is free, once; the rest is real."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'jobs.launchers.ray.up.node' in sys.orig_argv:\n"
        "    from jobs.launchers.ray.up import ports\n"
        "    real, left = ports.free, [int(os.environ['TAKEN'])]\n"
        "    def free(count):\n"
        "        found = real(count)\n"
        "        return [*found[:3], left.pop(), *found[4:]] if left and count == 6 else found\n"
        "    ports.free = free\n"
    )
    nodes = make()
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        os.environ["TAKEN"] = str(port)
        try:
            with path_begins_with(tmp_path):
                nodes.start()
        finally:
            del os.environ["TAKEN"]
        nodes.until(is_up(nodes), "it is up with another port")
    assert not nodes.record.address.endswith(f":{port}")
    assert f"ports_taken=[{port}]" in nodes.words()
    nodes.children[0].send_signal(signal.SIGTERM)
    assert nodes.until_ended() == [0]
    assert nodes.left() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_a_folder_that_another_user_has_is_named_with_what_to_do(make):
    nodes = make()
    foreign = shelter.base(nodes.root)
    foreign.mkdir()
    os.chown(foreign, 65534, 65534)
    nodes.start()
    assert nodes.until_ended() == [1]
    assert f"{foreign} belongs to another user (number 65534)" in nodes.over.words
    assert "temp_dir" in nodes.over.words and nodes.over.cause is Cause.SETUP


def test_a_ray_start_that_fails_is_told_in_its_own_words_and_leaves_nobody(make):
    nodes = make(env={"RAY_BACKEND_LOG_LEVEL": "debug", "RAY_object_store_memory": "x"}, cpus=-1)
    nodes.start()
    assert nodes.until_ended() == [1]
    assert "`ray start` ended with" in nodes.over.words and nodes.over.cause is Cause.SETUP
    assert nodes.record is None and nodes.left() == []


def test_a_token_that_is_not_seen_on_the_node_is_named(make):
    nodes = make(token="/nonexistent/token")
    nodes.start()
    assert nodes.until_ended() == [1]
    assert "the token /nonexistent/token is not seen on this node" in nodes.over.words


@pytest.mark.sampled(seconds=75)
def test_a_supervisor_that_is_killed_takes_its_ray_along(make):
    nodes = make()
    nodes.start()
    nodes.until(is_up(nodes), "it is up")
    nodes.until(lambda: nodes.running(b"gcs_server"), "the head runs")
    nodes.look()
    nodes.children[0].kill()
    nodes.children[0].wait()
    nodes.until(lambda: not nodes.left(), "all of Ray has gone with it")


@pytest.mark.sampled(seconds=30)
def test_the_head_does_not_wait_for_a_node_that_was_killed_on_its_machine(make):
    nodes = make(nodes=2, stop_lead_s=2 * PATIENCE_S)
    nodes.start()
    nodes.until(is_up(nodes), "both nodes are up")
    nodes.look()
    nodes.children[1].kill()
    nodes.children[1].wait()
    ask_to_end(nodes.folder, "a person wanted it")
    assert nodes.until_ended() == [0, -signal.SIGKILL]
    nodes.until(lambda: not nodes.left(), "all of Ray has gone")


JOB = """\
import pathlib, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
signal.sigwait({signal.SIGUSR2})
time.sleep(6)
pathlib.Path(sys.argv[1]).touch()
"""


@pytest.mark.sampled(seconds=45)
def test_jobs_of_another_node_have_their_time_when_ray_of_the_head_has_ended_and_nobody_fails(make, tmp_path):
    """The job is a child of the second node's, which looks like a supervisor of a job and takes a while to save."""
    saved = tmp_path / "saved"
    argv = [sys.executable, "-c", JOB, str(saved), "jobs.exec"]
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, sys\nif 'n2' in sys.orig_argv: os.posix_spawn({sys.executable!r}, {argv!r}, dict(os.environ))\n"
    )
    nodes = make(nodes=2)
    nodes.start(0)
    with path_begins_with(tmp_path):
        nodes.start(1)
    nodes.until(is_up(nodes), "both nodes are up")
    (server,) = nodes.running(b"gcs/gcs_server")
    os.kill(server, signal.SIGKILL)
    assert nodes.until_ended() == [0, 0], nodes.words()
    assert nodes.over.cause is Cause.NODE and "node n1: Ray ended by itself" in nodes.over.words
    assert nodes.report(0).step is Step.FAILED and nodes.report(1).step is Step.ENDED
    first, second = (nodes.folder.node(number).stat().st_mtime_ns for number in (0, 1))
    assert saved.stat().st_mtime_ns < second < first, "the head goes last"
    assert nodes.left() == []


@pytest.mark.sampled(seconds=30)
def test_a_node_that_cannot_be_started_again_was_up_before_which_is_no_failure_to_begin(make):
    nodes = make(nodes=2)
    nodes.start()
    nodes.until(is_up(nodes), "both nodes are up")
    Path(nodes.asked.token).unlink()
    second = nodes.children[1].pid
    os.kill(next(pid for pid in nodes.running(b"raylet/raylet") if _below(pid, second)), signal.SIGKILL)
    assert nodes.until_ended() == [0, 0], nodes.words()
    assert nodes.over.cause is Cause.NODE
    assert nodes.over.words.startswith(f"node n2: the token {nodes.asked.token} is not seen on this node")
    assert nodes.left() == []


@pytest.mark.sampled(seconds=25)
def test_a_node_that_is_lost_before_all_have_come_was_never_part_of_a_cluster_that_was_up(make):
    nodes = make(nodes=3, stop_lead_s=3.0)
    nodes.start(0, 1)
    nodes.until(lambda: nodes.report(1) is not None and nodes.report(1).step is Step.UP, "the second is there")
    Path(nodes.asked.token).unlink()
    second = nodes.children[1].pid
    os.kill(next(pid for pid in nodes.running(b"raylet/raylet") if _below(pid, second)), signal.SIGKILL)
    assert nodes.until_ended() == [0, 1], nodes.words()
    assert nodes.over.cause is Cause.SETUP and nodes.over.words.startswith("node n2: the token")
    assert nodes.left() == []


@pytest.mark.full
def test_ray_that_dies_on_a_node_is_started_again_and_on_the_head_ends_the_cluster(make):
    nodes = make(nodes=2)
    nodes.start()
    nodes.until(is_up(nodes), "both nodes are up")
    second = nodes.children[1].pid
    raylet = next(pid for pid in nodes.running(b"raylet/raylet") if _below(pid, second))
    os.kill(raylet, signal.SIGKILL)
    nodes.until(lambda: nodes.report(1).step is Step.STARTING, "its supervisor has seen it")
    nodes.until(lambda: nodes.report(1).step is Step.UP, "it is up again")
    (server,) = nodes.running(b"gcs/gcs_server")
    os.kill(server, signal.SIGKILL)
    assert nodes.until_ended() == [0, 0]
    assert nodes.over.cause is Cause.NODE and "Ray ended by itself" in nodes.over.words
    assert nodes.left() == []


@contextlib.contextmanager
def path_begins_with(folder: Path) -> Iterator[None]:
    """Supervisors that are started meanwhile run what is there."""
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{folder}:{before or Path.cwd()}"
    try:
        yield
    finally:
        os.environ["PYTHONPATH"] = before


def _below(pid: int, ancestor: int) -> bool:
    from jobs import processes

    return any(one.pid == pid for one in processes.descendants(ancestor))
