from pathlib import Path

import pytest

from tests.cli.shell import CHAIN, Shell


@pytest.fixture
def stx(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """CHAIN, submitted to its end; for tests that only read."""
    shell = Shell(tmp_path_factory.mktemp("finished"))
    shell("submit", str(shell.write(CHAIN)))
    return shell
