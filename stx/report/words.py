"""Numbers as people read them: counts, seconds, FLOPs, bytes. Pure; shared by the report and the command line."""

import math
from typing import Any

_STEPS = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def scaled(value: float, unit: str, *, base: float = 1000.0) -> str:
    """Three significant digits and a prefix: 3.41 TFLOP."""
    if not math.isfinite(value):
        return f"{value} {unit}"
    step = 0
    while abs(value) >= base * (1 - 5e-4) and step < len(_STEPS) - 1:
        value /= base
        step += 1
    return f"{value:.3g} {_STEPS[step]}{unit}".rstrip()


def flops(value: float) -> str:
    """Floating point operations (one multiply-add is two)."""
    if value == 0:
        return "-"
    return scaled(value, "FLOP")


def size(value: float) -> str:
    """Bytes, in powers of ten."""
    return scaled(value, "B")


def duration(seconds: float | None) -> str:
    """45 s, 3.5 min, 2.1 h, 4.0 d; a dash when it is not known."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} d"


def number(value: float) -> str:
    """A score: four significant digits, no exponent in the everyday range."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        digits = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 3
        return f"{value:.{min(digits, 4)}f}"
    return f"{value:.3e}"


def plain(value: Any) -> str:
    """An option's value, short: 5.0 is 5, a mapping is a=1 b=2."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, dict):
        return " ".join(f"{name}={plain(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(plain(inner) for inner in value) + "]"
    return "none" if value is None else str(value)


def one_line(text: str, *, limit: int = 160) -> str:
    """Several lines as one. Too long: cut, and of several lines the last one is kept, for it says what to do."""
    *lines, last = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    joined = "; ".join([*lines, last]).replace(":; ", ": ")
    if len(joined) <= limit:
        return joined
    kept = f"...; {last}" if lines and len(last) <= 2 * limit // 3 else "..."
    return joined[: limit - len(kept)] + kept


def plural(count: int, noun: str) -> str:
    """1 seed, 2 seeds."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
