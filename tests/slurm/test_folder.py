"""Which folders `up` refuses, and which ports it takes."""

import socket
import tempfile
from pathlib import Path

import pytest

from slurm.devcluster import folder, ports
from slurm.devcluster.errors import DevclusterError
from slurm.devcluster.folder import Folder


def refused(path: Path) -> str:
    with pytest.raises(DevclusterError) as caught:
        folder.check_path(Folder(path), ["n1", "c1"])
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_folder_whose_sockets_would_have_too_long_names_is_refused() -> None:
    fits = Path("/tmp") / ("x" * 60)
    folder.check_path(Folder(fits), ["n1", "c1"])
    assert "characters too long" in refused(Path(f"{fits}{'x' * 30}"))


def test_a_folder_with_other_things_is_refused_and_an_empty_one_is_not() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder.check_path(Folder(Path(name)), ["n1"])
        (Path(name) / "thesis.tex").touch()
        assert "holds other things" in refused(Path(name))


def test_a_link_or_a_file_is_refused() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        link = Path(name) / "link"
        link.symlink_to(name)
        assert "no folder of yours" in refused(link)
        (Path(name) / "file").touch()
        assert "no folder of yours" in refused(Path(name) / "file")


def test_a_port_that_somebody_listens_at_is_not_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not ports.is_free(port)
    assert ports.is_free(port)


def test_free_ports_are_distinct_and_below_those_of_outgoing_connections() -> None:
    found = ports.free(50)
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(found)) == 50
    assert all(10_000 <= port < first_outgoing for port in found)


def test_one_command_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    here = Folder(tmp_path)
    with folder.locked(here), pytest.raises(DevclusterError, match="another command works here"), folder.locked(here):
        pass
