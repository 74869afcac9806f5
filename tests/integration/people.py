"""Real users of one machine, by number: stx as each of them, with a Python that all of them may read.

The interpreter of a virtual environment often lies where only its owner may look. Then the standard library is linked
into a folder that everybody may read; where that cannot be done either, the tests skip and say why.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIB = f"python{sys.version_info.major}.{sys.version_info.minor}"
HEAVY = ("site-packages", "test", "idlelib", "__pycache__", "config-*", "tkinter", "ensurepip", "lib2to3")
PROBE = "import pydantic, typer, yaml, stx.cli"


@dataclass(frozen=True)
class Python:
    """An interpreter and what it needs in its environment."""

    program: Path
    env: Mapping[str, str]


@dataclass(frozen=True)
class Person:
    """One user. `folder`: his own, with his slots."""

    number: int
    folder: Path
    python: Python
    groups: tuple[int, ...] = ()
    umask: int = 0o022
    env: Mapping[str, str] = field(default_factory=dict)

    def start(self, *argv: str | Path, **options: object) -> "subprocess.Popen[str]":
        """Any program, as this user."""
        slots = {"STX_SLOTS": str(self.folder / "slots"), "STX_CORES": "2", "HOME": str(self.folder)}
        return subprocess.Popen(
            [str(word) for word in argv],
            user=self.number,
            group=self.number,
            extra_groups=self.groups,
            umask=self.umask,
            env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **self.python.env, **slots, **self.env},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def begin(self, *words: str | Path) -> "subprocess.Popen[str]":
        """An stx command."""
        return self.start(self.python.program, "-m", "stx.cli", *words)

    def stx(self, *words: str | Path, expect: int = 0) -> str:
        """An stx command to its end: all that it said."""
        out, err = (process := self.begin(*words)).communicate(timeout=120)
        said = out + err
        assert process.returncode == expect, f"stx {words}: exit {process.returncode}, not {expect}\n{said}"
        assert "Traceback" not in said and "unexpected" not in said, said
        return said


def common_python(folder: Path, *, reader: int) -> Python:
    """A Python that a user may read and run, or a visible skip."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    env = {"PYTHONPATH": os.pathsep.join([str(ROOT), packages]), "PYTHONDONTWRITEBYTECODE": "1"}
    for python in (Python(Path(sys.executable), env), _linked(folder / "python", env)):
        try:
            done = subprocess.run(
                [str(python.program), "-c", PROBE],
                env={"PATH": os.environ["PATH"], **python.env},
                user=reader,
                group=reader,
                extra_groups=[],
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
        except PermissionError as error:
            reason = str(error)
            continue
        if done.returncode == 0:
            return python
        reason = done.stderr.strip().splitlines()[-1]
    pytest.skip(f"another user cannot run this Python and these sources: {reason}")


def _linked(folder: Path, env: Mapping[str, str]) -> Python:
    base, lib = Path(sys.base_prefix), folder / "lib"

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy(source, target)

    shutil.copytree(base / "lib" / LIB, lib / LIB, ignore=shutil.ignore_patterns(*HEAVY), copy_function=link)
    for shared in (base / "lib").glob("libpython*.so*"):
        link(str(shared), str(lib / shared.name))
    (folder / "bin").mkdir()
    link(str(Path(sys.executable).resolve()), str(folder / "bin" / "python3"))
    return Python(folder / "bin" / "python3", {**env, "LD_LIBRARY_PATH": str(lib)})
