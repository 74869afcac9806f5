"""Extension by file name: `load("stx.alignment", "guided_teacher")` imports stx/alignment/guided_teacher.py.

A method or a stage kind is one file named after itself; there is no registry to keep in step.
"""

import difflib
import importlib
import pkgutil
from types import ModuleType

from stx.errors import ConfigError

# Modules of such a package that are shared between its members, not members themselves.
SHARED = frozenset({"base", "components", "extractor", "probe"})


def names(package: str) -> list[str]:
    """The members of a package, sorted: its modules without the shared and the private ones."""
    paths = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(paths) if m.name not in SHARED and not m.name.startswith("_"))


def load(package: str, name: str, *, where: str | None = None) -> ModuleType:
    """Import a member by name. An unknown name is a ConfigError that lists the known ones and the nearest."""
    known = names(package)
    if name not in known:
        raise unknown(name, known, what=f"no file {package.replace('.', '/')}/{name}.py", where=where)
    return importlib.import_module(f"{package}.{name}")


def unknown(name: str, known: list[str], *, what: str, where: str | None = None) -> ConfigError:
    """The error for a name that is not among `known`: the nearest one first (or one that goes on where it ends), then
    all of them.
    """
    near = difflib.get_close_matches(name, known, n=1) or [one for one in known if one.startswith(f"{name}_")]
    did_you_mean = f'did you mean "{near[0]}"? ' if near else ""
    return ConfigError(what, where=where, hint=f"{did_you_mean}known: {', '.join(known)}")
