"""command: a program of the user's, for which its version word stands: same argv, version, seed, inputs, same result.

The program finds its inputs in STX_INPUT_<NAME>, writes into STX_OUTPUT, and may keep what it needs in STX_ATTEMPT;
exit code 0 is done, 75 is yielded (saved, run me again), anything else failed. Of a growing input it sees the last
result.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, PlainValidator, ValidationInfo

from stx.config.schema import External, Many, Problem, StageOptions, input_, refusal, refusals, science
from stx.spec import GROWING, Cost
from stx.stages import base
from stx.stages.base import Inputs

RECIPE = 1
job = base.job
layouts = base.layouts
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def _inputs(value: Any, info: ValidationInfo) -> dict[str, str | External]:
    if not isinstance(value, Mapping):
        raise refusal("must be a mapping of names to stages, or to {path, version}")
    found = [
        Problem((name,), "is not a name", "a-z, 0-9 and _: it becomes STX_INPUT_<NAME>")
        for name in value
        if not _NAME.fullmatch(name)
    ]
    parsed: dict[str, str | External] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            parsed[name] = External.model_validate(item, context=info.context)
        elif isinstance(item, str | External):
            parsed[name] = item
        else:
            found.append(Problem((name,), "must be a stage's name, or {path, version}"))
    if found:
        raise refusals(found)
    return parsed


class Options(StageOptions):
    """`argv` as a list: no shell is involved."""

    argv: Many[Annotated[str, Field(min_length=1)]] = science(min_length=1)
    inputs: Annotated[Mapping[str, str | External], PlainValidator(_inputs)] = input_(default={})
    version: Annotated[str, Field(min_length=1)] = science("1")


def check(options: Options, inputs: Inputs) -> list[Problem]:
    """Nothing that arithmetic could refuse."""
    return []


def results(options: Options, inputs: Inputs) -> dict[str, int]:
    """The last result of every growing input."""
    return {name: bound.wants[-1] for name, bound in inputs.items() if bound.kind in GROWING}


def facts(options: Options, inputs: Inputs) -> dict[str, Any]:
    """Where the user's own files are."""
    external = {name: item for name, item in options.inputs.items() if isinstance(item, External)}
    return {"inputs": {name: item.path for name, item in external.items()}}


def cost(options: Options, inputs: Inputs, wants: tuple[int, ...]) -> Cost:
    """Unknown."""
    return Cost()
