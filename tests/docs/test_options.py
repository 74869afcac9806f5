"""docs/options.md: every option of every kind of stage and of every method, with its default, as the schema has it.

`STX_WRITE_OPTIONS=1 pytest tests/docs/test_options.py` makes the page; without the variable the test fails when it is
not what the schema says.
"""

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticUndefined

from stx import named
from stx.config import schema
from stx.config.schema import Mark, Options

PAGE = Path(__file__).parents[2] / "docs" / "options.md"
HEAD = """\
# Every option

Made of the schema by [tests/docs/test_options.py](../tests/docs/test_options.py). What an option is for the identity of
its stage:

* **in the key**: another value is another stage, computed anew.
* **how far**: no part of the key; raising it goes on, lowering it reuses what is there.
* **how**: no part of the key: files of yours, what is logged.
* **a stage**: the name of a stage of one of these kinds, or of a list of them.

`-` stands for an option that has to be given. Sizes and time of the jobs are in the [cluster file](cluster.md). `--set`
and `sweep` take the same names, with a dot before those of a group: `alignment.guidance`, `sampler.steps`. Beside the
stages, `report: {y: frechet_distance, x: [images_seen, total_compute, gpu_hours], series: [STAGE, ..]}` chooses what
the report compares; these are its defaults, with all sampled train stages.
"""
ROLES = {"science": "in the key", "goal": "how far", "where": "how"}
TABLE = "| option | default | one of | is |\n|---|---|---|---|"


def test_the_page_of_options_says_what_the_schema_says() -> None:
    found = page()
    if os.environ.get("STX_WRITE_OPTIONS"):
        PAGE.write_text(found)
    assert PAGE.read_text() == found, "STX_WRITE_OPTIONS=1 makes it anew"


def page() -> str:
    """The whole page."""
    rooms = {"stx.stages": "kind", "stx.config.alignment": "alignment: method"}
    members = [(room, name) for room in rooms for name in named.names(room)]
    sections = [section(f"{rooms[room]}: {name}", named.load(room, name).Options) for room, name in members]
    return "\n".join([HEAD, *sections])


def section(title: str, model: type[Options]) -> str:
    """One kind or method."""
    text = " ".join((model.__doc__ or "").split()) if model.__doc__ != inspect.getdoc(model.__base__) else ""
    return "\n".join([f"## {title}\n", *([f"{text}\n"] if text else []), TABLE, *rows(model, ""), ""])


def rows(model: type[Options], prefix: str) -> Iterator[str]:
    """A line for each field, those of a group with its name before them."""
    for mark in schema.marks(model):
        info = model.model_fields[mark.name]
        inner = info.annotation
        if mark.role == "group" and isinstance(inner, type) and issubclass(inner, Options) and mark.name != "alignment":
            yield from rows(inner, f"{prefix}{mark.name}.")
            continue
        default = "-" if info.is_required() else shown(info.get_default(call_default_factory=True))
        yield f"| `{prefix}{mark.name}` | {default} | {words(model, mark.name)} | {role(mark)} |"


def role(mark: Mark) -> str:
    """What it is for the identity."""
    if mark.role in ("input", "fan_out"):
        kinds = ", ".join(mark.kinds)
        return f"stages: {kinds}" if mark.role == "fan_out" else f"a stage: {kinds}" if kinds else "stages or files"
    return ROLES.get(mark.role, "a group")


def shown(value: Any) -> str:
    """A default as YAML has it."""
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, BaseModel):
        return f"`{{method: {value.method}}}`" if hasattr(value, "method") else "see there"
    if isinstance(value, tuple | list):
        return f"`[{', '.join(shown(one).strip('`') for one in value)}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def words(model: type[Options], name: str) -> str:
    """What a choice is between, by what it answers to a word that is none, alone or in a list."""
    adapter = TypeAdapter(model.__pydantic_fields__[name].rebuild_annotation())
    for wrong in ("no such word", ["no such word"]):
        try:
            adapter.validate_python(wrong)
        except ValidationError as error:
            hint = str(error.errors()[0].get("ctx", {}).get("hint") or "")
            if "known: " in hint:
                return hint.partition("known: ")[2]
    return ""
