"""Options as frozen, strict pydantic models, and what each of them means for a stage's identity.

Every field bears one mark; `marks` fails on a field without one, and a test walks all of them.
    science   in the key. neutral= is the value that reproduces what was before the field existed: while the field has
              it, it stays out of the key and of the spec that a worker reads
    where     out of the key: how a job runs, paths of the user's files
    goal      out of the key: how far (steps, milestones, which milestone); becomes images-seen counts
    input_    the name of another stage; its key is in the key
    fan_out   names of stages: one node for each
    group     a model of its own, with marks of its own

pydantic's errors never reach a user: `problems` says them in our words, and the caller adds file and line.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from stx import named
from stx.config.yaml import Path as OptionPath
from stx.config.yaml import flow
from stx.errors import ConfigError

_UNSET: Any = object()


@dataclass(frozen=True)
class Mark:
    """What a field is for the identity of its stage."""

    name: str
    role: str
    kinds: tuple[str, ...] = ()
    neutral: Any = _UNSET
    singular: str = ""

    @property
    def has_neutral(self) -> bool:
        """Whether a value of the field stays out of the key."""
        return self.neutral is not _UNSET


@dataclass(frozen=True)
class Problem:
    """Something wrong with one option: which one, what, and what would be valid."""

    path: OptionPath
    what: str
    hint: str | None = None


class OptionsError(ConfigError):
    """One or several options are wrong; `where`, `what` and `hint` are those of the first."""

    def __init__(self, errors: list[ConfigError]) -> None:
        first = errors[0]
        super().__init__(first.what, where=first.where, hint=first.hint)
        # stages that share a default share its error
        self.errors = tuple({str(error): error for error in errors}.values())

    def __str__(self) -> str:
        return "\n".join(ConfigError.__str__(error) for error in self.errors)


def _field(mark: Mark, default: Any, factory: Callable[[], Any] | None = None, **limits: Any) -> Any:
    extra: Any = {"mark": mark}
    if factory is not None:
        return Field(default_factory=factory, json_schema_extra=extra)
    return Field(default, json_schema_extra=extra, **limits)


def science(default: Any = ..., *, neutral: Any = _UNSET, **limits: Any) -> Any:
    """A field in the key. `limits` are pydantic's (gt, ge, lt, le, min_length)."""
    return _field(Mark("", "science", neutral=neutral), default, **limits)


def where(default: Any = ..., **limits: Any) -> Any:
    """A field out of the key."""
    return _field(Mark("", "where"), default, **limits)


def goal(default: Any = ..., **limits: Any) -> Any:
    """A field that says how far, out of the key."""
    return _field(Mark("", "goal"), default, **limits)


def input_(*kinds: str, default: Any = ...) -> Any:
    """The name of a stage of one of `kinds` (none given: of any kind)."""
    return _field(Mark("", "input", kinds=kinds), default)


def fan_out(*kinds: str, singular: str) -> Any:
    """Names of stages; each node of each of them becomes the input `singular` of a node of its own."""
    return _field(Mark("", "fan_out", kinds=kinds, singular=singular), ..., min_length=1)


def group(factory: Callable[[], Any] | None = None) -> Any:
    """A nested model; required without a factory."""
    return _field(Mark("", "group"), ..., factory)


class Section(BaseModel):
    """A mapping of a file: unknown keys, wrong types and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _known(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """What is known is validated all the same; nothing is called missing: it may be what was misspelt."""
        unknown = [key for key in value if key not in cls.model_fields] if isinstance(value, Mapping) else []
        if not unknown:
            return handler(value)
        found = [_unknown_option(key, cls) for key in unknown]
        try:
            handler({key: item for key, item in value.items() if key in cls.model_fields})
        except ValidationError as error:
            found += [problem for problem in problems(error) if not problem.path or problem.path[0] in value]
        raise refusals(found)


class Options(Section):
    """A section of a stage: every field bears a mark."""


class StageOptions(Options):
    """What all kinds have in common."""

    seed: int = science(0, ge=0, lt=2**32)


_ELSEWHERE = {"cfg": "guidance", "cfg_scale": "guidance", "learning_rate": "lr"}  # what other programs call ours


def _unknown_option(key: str, model: type[Section]) -> Problem:
    if (ours := _ELSEWHERE.get(key)) in model.model_fields:
        return Problem((key,), "no such option here", f"it is called {ours}")
    error = named.unknown(key, sorted(model.model_fields), what="no such option here")
    return Problem((key,), error.what, error.hint)


def refusal(what: str, hint: str | None = None) -> PydanticCustomError:
    """What a validator raises: our own words."""
    return PydanticCustomError("stx", "{what}", {"what": what, "hint": hint})


def refusals(found: list[Problem]) -> ValidationError:
    """The same for several, each at a path below the value that is being validated."""
    details: list[Any] = [{"type": refusal(p.what, p.hint), "loc": p.path, "input": None} for p in found]
    return ValidationError.from_exception_data("options", details)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def choice(*valid: str) -> AfterValidator:
    """One of these words."""

    def check(value: str) -> str:
        if value in valid:
            return value
        error = named.unknown(value, list(valid), what="not one of the valid words")
        raise refusal(error.what, error.hint)

    return AfterValidator(check)


def only(valid: Any) -> AfterValidator:
    """The one value that is built so far of an option that will have others."""

    def check(value: Any) -> Any:
        if value != valid:
            raise refusal(f"{flow(value)} is not built yet in this version", f"valid: {flow(valid)}")
        return value

    return AfterValidator(check)


_WINDOW = "a window is [low, high] with 0 <= low < high <= 1 (t=1 is noise)"


def _two_numbers(window: Any) -> Any:
    numbers = isinstance(window, list | tuple) and len(window) == 2
    if not numbers or any(isinstance(edge, bool) or not isinstance(edge, int | float) for edge in window):
        raise refusal(_WINDOW, "for example [0.4, 0.7]; [0, 1] is all of t")
    return tuple(window)


def _in_order(window: tuple[float, float]) -> tuple[float, float]:
    low, high = window
    if not 0.0 <= low < high <= 1.0:
        raise refusal(_WINDOW, "for example [0.4, 0.7]; [0, 1] is all of t")
    return window


def _ascending(values: tuple[int, ...]) -> tuple[int, ...]:
    if any(later <= earlier for earlier, later in itertools.pairwise(values)):
        raise refusal("must be ascending, without repetition", f"sorted: {sorted(set(values))}")
    return values


Item = TypeVar("Item")
Many = Annotated[tuple[Item, ...], BeforeValidator(_as_tuple)]
Two = Annotated[tuple[Item, Item], BeforeValidator(_as_tuple)]
Positive = Annotated[int, Field(gt=0)]
Window = Annotated[tuple[float, float], BeforeValidator(_two_numbers), AfterValidator(_in_order)]
Milestones = Annotated[Many[Positive], AfterValidator(_ascending)]


def _absolute(value: str, info: ValidationInfo) -> str:
    if not value:
        raise refusal("must not be empty")
    try:
        return str(Path(info.context or ".", Path(value).expanduser() if value[0] == "~" else value).absolute())
    except RuntimeError:
        raise refusal("no home directory of that name", "a folder that is called so is written ./~NAME") from None


UserPath = Annotated[str, AfterValidator(_absolute)]  # relative to the experiment file


@functools.cache
def marks(model: type[Options]) -> tuple[Mark, ...]:
    """The marks of a model's fields, in their order."""
    found = []
    for name, info in model.model_fields.items():
        extra = info.json_schema_extra
        assert isinstance(extra, dict) and isinstance(extra.get("mark"), Mark), (
            f"{model.__qualname__}.{name} has no mark"
        )
        mark: Any = extra["mark"]
        found.append(Mark(name, mark.role, mark.kinds, mark.neutral, mark.singular))
    return tuple(found)


class External(Options):
    """A file or folder of the user's: its path is out of the key, its version word stands for its content."""

    path: UserPath = where()
    version: str = science(min_length=1)


def science_of(options: Options) -> dict[str, Any]:
    """The JSON of what is hashed."""
    return _collect(options, "science")


def where_of(options: Options) -> dict[str, Any]:
    """The JSON of what is not hashed and the job needs."""
    return _collect(options, "where")


def _collect(options: Options, role: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for mark in marks(type(options)):
        value = getattr(options, mark.name)
        if mark.role in ("group", "input") or isinstance(value, Options):
            inner = _collect_below(value, role)
            if inner:  # a group whose fields are all neutral is as if it were not there
                found[mark.name] = inner
        elif mark.role != role or value == mark.neutral or (role == "where" and value is None):
            continue
        else:
            found[mark.name] = plain(value)
    return found


def _collect_below(value: Any, role: str) -> dict[str, Any]:
    if isinstance(value, Options):
        return _collect(value, role)
    if isinstance(value, Mapping):
        return {name: _collect(item, role) for name, item in value.items() if isinstance(item, Options)}
    return {}


def inputs_of(options: Options, *, prefix: str = "") -> dict[str, tuple[str, tuple[str, ...]]]:
    """The stages that are named in options: option path -> (stage, allowed kinds). Fan-outs are not among them."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for mark in marks(type(options)):
        if mark.role == "group":
            found |= inputs_of(getattr(options, mark.name), prefix=f"{prefix}{mark.name}.")
        elif mark.role == "input":
            value = getattr(options, mark.name)
            if isinstance(value, str):
                found[prefix + mark.name] = (value, mark.kinds)
            elif isinstance(value, Mapping):
                names = {name: stage for name, stage in value.items() if isinstance(stage, str)}
                found |= {f"{prefix}{mark.name}.{name}": (stage, mark.kinds) for name, stage in names.items()}
    return found


def fan_of(options: Options) -> tuple[Mark, tuple[str, ...]] | None:
    """The fan-out of a stage, if its kind has one."""
    for mark in marks(type(options)):
        if mark.role == "fan_out":
            return mark, getattr(options, mark.name)
    return None


def value_at(options: Any, path: str) -> Any:
    """The validated value at a dotted option path, as JSON."""
    value = options
    for part in path.split("."):
        value = value[part] if isinstance(value, Mapping) else getattr(value, part)
    return plain(value)


def plain(value: Any) -> Any:
    """A validated value as JSON."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    assert is_dataclass(value) and not isinstance(value, type), f"{type(value).__name__} is no option value"
    return dict(vars(value))  # dataclasses in options are flat


# what is wrong, and what would be right
_TYPES = {
    "int_type": ("must be a whole number", "for example 400, without quotes"),
    "float_type": ("must be a number", "for example 0.5 or 1e-4, without quotes"),
    "bool_type": ("must be true or false", "without quotes"),
    "string_type": ("must be text", "put it in quotes"),
    "tuple_type": ("must be a list", "for example [1, 2]"),
    "dict_type": ("must be a mapping", "for example {name: value}"),
    "model_type": ("must be a mapping", "for example {name: value}"),
    "finite_number": ("must be a finite number", "for example 0.5 or 1e-4"),
    "string_too_short": ("must not be empty", None),
}
_LIMITS = {
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must have at least {min_length} item(s)",
    "too_long": "must have at most {max_length} item(s)",
}


def problems(error: ValidationError) -> list[Problem]:
    """A validation error in our words. A list whose items are all wrong is not called too short as well."""
    details = error.errors(include_url=False)
    return [_problem(d) for d in details if d["type"] != "too_short" or len(d["input"]) < d["ctx"]["min_length"]]


def _problem(detail: Any) -> Problem:
    kind, path, context = detail["type"], tuple(detail["loc"]), detail.get("ctx", {})
    if kind == "stx":
        return Problem(path, context["what"], context["hint"])
    if kind == "missing" and path and isinstance(path[-1], int):
        return Problem(path[:-1], "the list is too short")
    if kind == "missing":
        hint = "give it here; what all stages of a kind share may stand under defaults"
        return Problem(path, f'"{path[-1]}" is required and not given', hint)
    if kind in _LIMITS:
        return Problem(path, _LIMITS[kind].format(**context))
    if kind == "tuple_type" and isinstance(detail["input"], str | int | float):
        return Problem(path, "must be a list", f"for example [{flow(detail['input'])}]")
    if kind == "string_type" and isinstance(detail["input"], list | tuple):
        return Problem(path, "must be text, not a list", "give one, without brackets")
    if kind == "int_type" and isinstance(detail["input"], float) and detail["input"].is_integer():
        return Problem(path, "must be a whole number", f"write {int(detail['input'])}")
    return Problem(path, *_TYPES.get(kind, ("is not valid here", None)))


AnyOptions = TypeVar("AnyOptions", bound=Section)


def validate(
    model: type[AnyOptions], mapping: Mapping[str, Any], *, folder: Path | None = None
) -> AnyOptions | list[Problem]:
    """The model, or all that is wrong with the mapping. Paths in it are relative to `folder`."""
    try:
        return model.model_validate(mapping, context=folder)
    except ValidationError as error:
        return problems(error)
