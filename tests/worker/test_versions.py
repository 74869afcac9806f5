import platform
import socket
from importlib import metadata

from stx.worker.versions import versions


def test_an_attempt_knows_what_makes_its_numbers():
    found = versions()
    assert found["python"] == platform.python_version()
    for package in ("torch", "deepspeed", "numpy"):
        assert found[package] == metadata.version(package)
    assert found["host"] == socket.gethostname()
    assert found["device"]
    assert all(isinstance(value, str) for value in found.values())
