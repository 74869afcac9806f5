"""Times in a cluster file: 45s, 30m, 24h, 7d, or a number of seconds."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from stx.config.schema import refusal

_TIME = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        match = _TIME.fullmatch(value)
        if match is None:
            raise refusal("is not a time", "for example 45s, 30m, 24h, 7d, or a number of seconds")
        return float(match[1]) * _SECONDS[match[2]]
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
