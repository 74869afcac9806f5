"""What a node decides before Ray is started: folders, ports, sizes, addresses, the command line."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from jobs.launchers.ray.up import command, place, ports, shelter, size, submission
from jobs.launchers.ray.up import folder as folders
from jobs.launchers.ray.up.command import Ports
from jobs.launchers.ray.up.folder import Asked, ClusterFolder, Head, Report, Step
from jobs.launchers.ray.up.there import Allocation

HEAD = Head(host="10.0.0.1", port=20000, dashboard_port=20001)
SIZE = size.Size(cpus=4, gpus=1, memory_bytes=10**9)
ASKED = Asked(name="c", nodes=2, record="/s/ray/c.json", token="/home/me/t")
NODE = Ports(node_manager=1, object_manager=2, metrics=3)


def started(**changes):
    ours = {"name": "n1", "address": "10.0.0.2", "ports": NODE, "size": SIZE, "temp_dir": "/tmp/x", "head": None}
    return command.start(**(ours | changes))


def test_the_head_has_a_dashboard_that_only_its_own_machine_reaches():
    words = started(ports=Ports(node_manager=1, object_manager=2, metrics=3, gcs=4, dashboard=5, client=6))
    for wanted in ("--head", "--port=4", "--dashboard-host=127.0.0.1", "--dashboard-port=5", "--block", "--num-gpus=1"):
        assert wanted in words
    assert not any(word.startswith("--address") for word in words)


def test_another_node_joins_the_head_and_has_nothing_of_its_own():
    words = started(head=HEAD)
    assert "--address=10.0.0.1:20000" in words and "--memory=1000000000" in words
    assert not any(word.startswith(("--head", "--port", "--dashboard-port", "--include-dashboard")) for word in words)


def test_daemons_authenticate_and_see_nothing_of_another_ray_or_of_the_job_around():
    base = {"RAY_ADDRESS": "x:1", "SLURM_JOB_ID": "7", "SLURM_CONF": "/c", "PATH": "/bin", "RAY_AUTH_MODE": "disabled"}
    found = command.environment(token="/t", extra={"RAY_GRAFANA_HOST": "http://g"}, base=base)
    assert found["RAY_AUTH_MODE"] == "token" and found["RAY_AUTH_TOKEN_PATH"] == "/t"
    assert found["RAY_GRAFANA_HOST"] == "http://g" and found["PATH"] == "/bin" and found["SLURM_CONF"] == "/c"
    assert "RAY_ADDRESS" not in found and "SLURM_JOB_ID" not in found


def test_ports_are_free_different_and_not_those_of_outgoing_connections():
    found = ports.free(6)
    last = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(found)) == 6 and all(10_000 <= port < max(last, 11_000) for port in found)


def test_ports_that_are_all_taken_are_an_error_with_their_range():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ports.NoPorts, match=f"only 0 of 1 ports are free on this node from {port} to {port}"):
            ports.free(1, of=[port])
        assert ports.taken([port]) == [port]


@pytest.fixture
def short():
    """A folder with a short name: sockets lie in shelters."""
    with tempfile.TemporaryDirectory(prefix="sr", dir="/tmp") as folder:
        yield Path(folder)


def test_a_shelter_is_private_new_and_goes_whole(short):
    first, second = shelter.make(short), shelter.make(short)
    assert first != second and first.parent == short / f"stx-ray-{os.geteuid()}"
    assert first.stat().st_mode & 0o777 == 0o700
    (first / "session" / "logs").mkdir(parents=True)
    shelter.remove(first)
    assert not first.exists() and second.exists()
    assert {path.name for path in second.parent.iterdir()} == {second.name, f"{second.name}.owner"}


MAKE = """\
import pathlib, sys
from jobs.launchers.ray.up import shelter
print(shelter.make(pathlib.Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def test_the_next_shelter_removes_those_whose_supervisors_were_killed_and_no_others(short):
    owners = [
        subprocess.Popen([sys.executable, "-c", MAKE, str(short)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    killed, living = (Path(owner.stdout.readline().decode().strip()) for owner in owners)
    (killed / "session" / "logs").mkdir(parents=True)
    told = killed.with_suffix(".owner").read_text()
    pid, start, boot, machine = told.split(":")
    alike = {
        "000001": f"{os.getpid()}:{start}:{boot}:{machine}",  # its pid is somebody else's now
        "000002": f"{pid}:{start}:{boot}:{machine}-elsewhere",
        "000003": "",
    }
    for name, owner in alike.items():
        (killed.parent / name).mkdir()
        (killed.parent / f"{name}.owner").write_text(owner)
    (killed.parent / "000004").mkdir()
    try:
        assert shelter.make(short).exists() and killed.exists(), "it lives"
        owners[0].kill()
        owners[0].wait()
        mine = shelter.make(short)
    finally:
        for owner in owners:
            owner.kill()
            owner.communicate()
    left = {path.name for path in mine.parent.iterdir()}
    assert not {killed.name, f"{killed.name}.owner", "000001", "000001.owner"} & left
    assert {living.name, f"{living.name}.owner", mine.name, "000002", "000002.owner", "000003", "000004"} <= left


def test_a_shelter_that_is_open_to_others_or_a_link_is_refused(short):
    base = shelter.base(short)
    base.mkdir()
    base.chmod(0o755)
    with pytest.raises(shelter.Unsafe, match="is open to others \\(mode 755\\)"):
        shelter.make(short)
    base.rmdir()
    base.symlink_to(short)
    with pytest.raises(shelter.Unsafe):
        shelter.make(short)


def test_a_shelter_whose_sockets_would_have_too_long_names_is_refused(tmp_path):
    long = tmp_path / ("x" * 60)
    long.mkdir()
    with pytest.raises(shelter.Unsafe, match="characters too long for a socket's path"):
        shelter.make(long)


def test_a_node_offers_what_slurm_gave_us_less_what_ray_takes():
    environment = {"SLURM_CPUS_ON_NODE": "1", "SLURM_MEM_PER_NODE": "4096"}
    found = size.of(cpus=None, gpus=0, mem_gb=None, head=False, environment=environment)
    assert found.cpus == 1 and 3.2 * 2**30 < found.memory_bytes <= 3.5 * 2**30
    head = size.of(cpus=None, gpus=0, mem_gb=None, head=True, environment=environment)
    assert head.memory_bytes < found.memory_bytes
    with pytest.raises(size.TooSmall, match=r"1\.0 GB of memory, of which Ray itself takes 1\.5"):
        size.of(cpus=1, gpus=0, mem_gb=1.0, head=True)


def test_a_network_that_is_not_there_is_an_error_with_those_that_are():
    with pytest.raises(place.NoAddress, match=r"interface: ib7} has no address here; there are .*\(\d"):
        place.address(interface="ib7", head=None)


def test_a_head_that_cannot_be_reached_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    head = Head(host="127.0.0.1", port=port, dashboard_port=1)
    with pytest.raises(place.NoAddress, match=f"the head is at 127.0.0.1:{port}, which cannot be reached"):
        place.address(interface=None, head=head)


def test_a_task_of_an_allocation_knows_its_node_and_the_first_is_the_head():
    environment = {"SLURM_PROCID": "0", "SLURMD_NODENAME": "gpu7", "SLURM_JOB_ID": "12"}
    found, folder = place.of(["--slurm", "/s/ray/c/001"], environment)
    assert (found.name, found.keeper, found.is_head, folder) == ("gpu7", "slurm:12", True, Path("/s/ray/c/001"))
    found, _ = place.of(["--node", "1", "n2", "/f"])
    assert found.number == 1 and not found.is_head and found.keeper.startswith(f"{os.getpid()}:")


def test_clusters_are_numbered_the_newest_is_found_and_a_number_has_one_owner(tmp_path):
    clusters = tmp_path / "c"
    assert folders.newest(clusters)[0] == 0
    for number in (1, 2):
        assert folders.claim(clusters, ASKED, number=number) is not None
    assert folders.claim(clusters, ASKED, number=2) is None
    number, folder = folders.newest(clusters)
    assert (number, folder.path.name) == (2, "002")
    assert folders.load(Asked, folder.asked) == ASKED
    assert folder.path.stat().st_mode & 0o777 == 0o700


def test_what_nodes_say_is_read_in_order(tmp_path):
    folder = ClusterFolder(tmp_path)
    for number in (10, 2):
        folders.save(folder.node(number), Report(number=number, name=f"n{number}", step=Step.UP, process="1:2:b:m"))
    assert [report.number for report in folder.reports()] == [2, 10]


def test_the_allocation_is_one_task_per_node_on_whole_nodes_and_is_not_started_again():
    text = submission.render(
        ClusterFolder(Path("/s/ray/my cluster/001")),
        Allocation(name="stx-ray-c", nodes=2, time_s=7200, lead_s=120, gpus=8, scheduler={"partition": "gpu"}),
    )
    for wanted in (
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --exclusive",
        "#SBATCH --mem=0",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --signal=USR2@120",
        "#SBATCH --time=0-02:00:00",
        "#SBATCH --no-requeue",
        "#SBATCH --partition=gpu",
    ):
        assert wanted in text.splitlines()
    (line,) = [line for line in text.splitlines() if line.startswith("srun ")]
    assert "--kill-on-bad-exit=1" in line and "--cpu-bind=none" in line
    assert " --wait=0 " in line, "a node that leaves first would end the others after the site's WaitTime"
    assert line.endswith("-P -m jobs.launchers.ray.up.node --slurm '/s/ray/my cluster/001'")


def test_an_allocation_of_part_of_a_node_asks_for_that_part():
    asked = Allocation(name="c", nodes=1, time_s=60, lead_s=5, cpus=4, mem_gb=2.5, scheduler={"gpu_type": "h100"})
    text = submission.render(ClusterFolder(Path("/s/ray/c/001")), asked)
    assert "#SBATCH --cpus-per-task=4" in text and "#SBATCH --mem=2560M" in text
    assert "--exclusive" not in text and "gpus-per-node" not in text and "--cpus-per-task=4 " in text
