"""The cluster file: where stages run and how large their jobs are. Nothing in it is hashed; everything has a default.

`stages.default` holds for every kind, `stages.KIND` is merged over it. A kind has either `ranks` on one node or
`layouts`, a list in order of preference; plan checks the batch against all of them, because each attempt takes the
first that fits where it runs (stx/coordinator/layouts.py).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator

from jobs import slots
from stx import named
from stx.config import schema
from stx.config.coordinator import Coordinator
from stx.config.load import read_document, value_at
from stx.config.ray import DEFAULTS as RAY_DEFAULTS
from stx.config.ray import Ray
from stx.config.schema import Many, Positive, Problem, Section, choice, only, refusal, refusals
from stx.config.seconds import Seconds
from stx.config.slurm import DEFAULTS as SLURM_DEFAULTS
from stx.config.slurm import Slurm
from stx.config.yaml import Document, dotted, flow
from stx.errors import ConfigError

BUILT_IN = Path(__file__).parent / "clusters"
SHORTEST_HANG_S = 5.0
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {"slurm": SLURM_DEFAULTS, "ray": RAY_DEFAULTS}
_ONLY_FOR = {"slurm": ("slurm", "bad_nodes"), "ray": ("ray",)}


def _gpus(value: Any) -> Any:
    if value == "auto":
        return min(1, len(slots.gpus()))
    return value


Gpus = Annotated[int, BeforeValidator(_gpus), Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
ZeroStage = Annotated[int, Field(ge=0, le=3)]


def _longer_than_looks(value: float) -> float:
    if value < SHORTEST_HANG_S:
        hint = f"at least {SHORTEST_HANG_S:g}: a heart beats every 2 s, and whoever watches it looks every 1 or 2 s"
        raise refusal("is shorter than what can be told from a healthy worker", hint)
    return value


Limit = Annotated[Seconds, AfterValidator(_longer_than_looks)]


class HangAfter(Section):
    """Seconds without progress, by what the worker was doing, after which its own watchdog ends it (cause HANG).

    `start` ends with the first step, so it covers a compilation. docs/cluster.md says what falls under which.
    """

    start: Limit = 900.0
    step: Limit = 600.0
    save: Limit = 900.0
    sample: Limit = 1800.0
    evaluate: Limit = 1800.0
    other: Limit = 1800.0


class Retries(Section):
    """How many attempts each cause may cost a stage."""

    lost: Count = 5
    node: Count = 5
    oom: Count = 1
    hang: Count = 2
    nan: Count = 0
    setup: Count = 2
    no_space: Count = 10
    timeout: Count = 5


class Checkpoint(Section):
    """How often a stage saves, and how many checkpoints it keeps.

    `every_s` is the shortest time between two saves that nothing but time asks for. It is longer where saving would
    take more than `max_stall` of the time.
    """

    every_s: Seconds = 30.0
    keep: Positive = 2
    max_stall: float = Field(default=0.01, gt=0, le=1)


class BadNodes(Section):
    """Attempts that failed for a node keep others away from it: `after` so many of them, each for `expire` long."""

    after: Positive = 1
    expire: Seconds = 86400.0


class Limits(Section):
    """Of one experiment: at most `queued` jobs wait for the scheduler at a time (one that was just submitted counts as
    waiting), and at most `running` are alive in all: a job that waits may start at any moment, so it counts there too.
    """

    queued: Positive = 2
    running: Positive = 1000


class Layout(Section):
    """One way to spread a run: W = nodes x ranks_per_node. Without micro_batch a rank takes its share in one go; what
    else it leaves open, its kind says.
    """

    nodes: Positive = 1
    ranks_per_node: Positive = 1
    cpus_per_rank: Positive | None = None
    gpus_per_rank: Gpus | None = None
    micro_batch: Positive | None = None
    zero_stage: ZeroStage | None = None
    activation_checkpointing: bool | None = None

    @property
    def ranks(self) -> int:
        """World size."""
        return self.nodes * self.ranks_per_node


class StageResources(Section):
    """What a job of one kind asks for. `flops_per_s` is what one rank achieves, for the hours of the bill; `slurm`
    holds for this kind before the cluster file's own.
    """

    ranks: Positive = 1
    layouts: Annotated[Many[Layout], Field(min_length=1)] | None = None
    cpus_per_rank: Positive = 1
    gpus_per_rank: Gpus = 0
    mem_gb: float = Field(default=4.0, gt=0)
    time: Seconds = 3600.0
    zero_stage: ZeroStage = 1
    activation_checkpointing: bool = False
    compile: Annotated[bool, only(valid=False)] = False
    noise_on: Annotated[str, choice("loader", "device")] = "loader"
    flops_per_s: float | None = Field(default=None, gt=0)
    slurm: Slurm | None = None


def _merged_stages(value: Any) -> Any:
    """Validate each kind's mapping merged over the defaults; an error is reported once, where the value stands."""
    default = value.get("default", {}) if isinstance(value, Mapping) else None
    if not isinstance(default, Mapping):
        return value
    kinds = named.names("stx.stages")  # found by file name; nothing of them is imported
    found = [_no_kind(kind, kinds) for kind in value if kind not in ("default", *kinds)]
    merged: dict[str, StageResources] = {}
    for kind, own in {"default": default, **value}.items():
        if not isinstance(own, Mapping):
            found.append(Problem((kind,), "must be a mapping"))
            continue
        checked = schema.validate(StageResources, _over(default, own))
        if isinstance(checked, StageResources):
            merged[kind] = checked
        else:
            found += [
                Problem((kind, *p.path), p.what, p.hint) for p in checked if kind == "default" or p.path[0] in own
            ]
        if "ranks" in own and "layouts" in own:
            found.append(Problem((kind, "ranks"), "ranks has no effect beside layouts", "remove one of the two"))
    if found:
        raise refusals(found)
    return merged


def _no_kind(kind: str, kinds: list[str]) -> Problem:
    error = named.unknown(kind, ["default", *kinds], what=f'"{kind}" is no stage kind')
    return Problem((kind,), error.what, error.hint)


def _over(default: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    hidden = {"ranks": "layouts", "layouts": "ranks"}
    return {key: value for key, value in default.items() if hidden.get(key) not in own} | dict(own)


@dataclass(frozen=True)
class Origin:
    """Where the values of a cluster file stand. All are equal: two files that say the same are the same cluster."""

    file: str = field(default="", compare=False)
    text: str = field(default="", compare=False)
    document: Document = field(default=Document(file="", value=None, lines={}), compare=False)

    def place(self, path: tuple[str | int, ...]) -> str:
        """`c.yaml:3: stages.train.layouts[1].nodes = 2`; the line of what is around it where it is not in the file."""
        lines, value = self.document.lines, value_at(self.document.value, path)
        line = next((lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in lines), 1)
        equals = "" if isinstance(value, Mapping) else f" = {flow(value)}"
        return f"{self.file}:{line}: {dotted(path)}{equals}"


class Cluster(Section):
    """A cluster file, with `name` = the built-in's or the file's. Its defaults suit processes on this machine."""

    name: str = "local"
    launcher: Annotated[str, choice("local", "slurm", "ray")] = "local"
    store: str | None = None
    coordinator: Coordinator = Coordinator()
    poll_s: Seconds = 0.2
    lease_s: Seconds = 20.0
    stop_lead_s: Seconds = 90.0
    hang_after_s: HangAfter = HangAfter()
    retries: Retries = Retries()
    backoff_s: Annotated[Many[Annotated[float, Field(ge=0)]], Field(min_length=1)] = (0.0, 5.0, 30.0, 300.0)
    checkpoint: Checkpoint = Checkpoint()
    limits: Limits = Limits()
    bad_nodes: BadNodes = BadNodes()
    stages: Annotated[dict[str, StageResources], BeforeValidator(_merged_stages)] = Field(
        default_factory=lambda: {"default": StageResources()}
    )
    slurm: Slurm = Slurm()
    ray: Ray = Ray()
    on_event: Annotated[Many[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None
    _origin: Origin = PrivateAttr(default_factory=Origin)

    @model_validator(mode="after")
    def _used(self) -> "Cluster":
        """What only one launcher understands stands in the file of such a cluster."""
        found = [*self.coordinator.useless(self.launcher)]
        what = f"has no effect with launcher: {self.launcher}"
        for name, launcher in self._useless().items():
            if name in self.model_fields_set:
                found.append(Problem((name,), what, f"remove it, or say launcher: {launcher}"))
        if self.launcher == "ray" and self.ray.address is None and self.coordinator.where == "cron":
            hint = "say where: foreground or detached; or give ray.address"
            found.append(
                Problem(("coordinator", "where"), "between its passes no Ray cluster of ours is kept up", hint)
            )
        if self.launcher != "slurm":
            paths = [("stages", kind, "slurm") for kind, one in self.stages.items() if one.slurm is not None]
            found += [Problem(path, what, "remove it, or say launcher: slurm") for path in paths]
        if found:
            raise refusals(found)
        return self

    def _useless(self) -> dict[str, str]:
        """The sections that nothing reads here, and the launcher that would. A Ray cluster may lie in an allocation."""
        read = {"slurm"} if self.launcher == "ray" and self.ray.where == "slurm" else set()
        others = {launcher: names for launcher, names in _ONLY_FOR.items() if launcher != self.launcher}
        return {name: launcher for launcher, names in others.items() for name in names if name not in read}

    def scheduler(self, kind: str) -> Slurm:
        """What a job of `kind` asks of its scheduler besides its size."""
        own = self.resources(kind).slurm
        return self.slurm if own is None else own.over(self.slurm)

    def resources(self, kind: str) -> StageResources:
        """What a job of `kind` asks for."""
        return self.stages.get(kind) or self.stages["default"]

    def place(self, kind: str, path: tuple[str | int, ...]) -> str:
        """Where `path` of what holds for a kind stands: under stages.KIND, or under stages.default."""
        named = ("stages", kind, *path)
        if not self._origin.file:
            return f"cluster {self.name}: {dotted(named)}"
        shared = ("stages", "default", *path)
        lines = self._origin.document.lines
        return self._origin.place(shared if shared in lines and named not in lines else named)

    def line(self, *path: str) -> str:
        """Where an option stands."""
        return self._origin.place(path) if self._origin.file else f"cluster {self.name}: {dotted(path)}"

    @property
    def text(self) -> str:
        """The file's own words; nothing of one that was read from no file."""
        return self._origin.text

    def dump(self) -> dict[str, Any]:
        """Its JSON; parse with Cluster.model_validate."""
        record: dict[str, Any] = self.model_dump(mode="json")
        for stage in record["stages"].values():
            del stage["layouts" if stage["layouts"] is None else "ranks"]
            if stage["slurm"] is None:
                del stage["slurm"]
        for name in self._useless():
            del record[name]
        return record


def load_cluster(name_or_path: str | Path | None = None) -> Cluster:
    """A built-in by name or a file by path; None means $STX_CLUSTER, else `local`."""
    wanted = str(name_or_path or os.environ.get("STX_CLUSTER") or "local")
    path = Path(wanted)
    if re.fullmatch(r"[a-z][a-z0-9_-]*", wanted) and not path.is_file():
        path = BUILT_IN / f"{wanted}.yaml"
        if not path.is_file():
            known = sorted(file.stem for file in BUILT_IN.glob("*.yaml"))
            error = named.unknown(wanted, known, what=f'no built-in cluster "{wanted}"')
            where = f"--cluster {wanted}" if name_or_path else f"$STX_CLUSTER = {wanted}"
            raise ConfigError(error.what, where=where, hint=f"{error.hint}; or give the path of a cluster file")
    return _parse(path, file=wanted if path.parent != BUILT_IN else f"cluster {wanted}")


def _with_defaults(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of its launcher under a cluster file's own words."""
    defaults = _DEFAULTS.get(str(mapping.get("launcher")), {})
    merged = dict(mapping)
    for name, value in defaults.items():
        own = mapping.get(name, value)
        merged[name] = {**value, **own} if isinstance(value, Mapping) and isinstance(own, Mapping) else own
    return merged


def _parse(path: Path, *, file: str) -> Cluster:
    text, document = read_document(path)
    mapping = {} if document.value is None else document.value
    if not isinstance(mapping, Mapping):
        raise ConfigError(
            "a cluster file is a mapping, this is not", where=file, hint=f"it has {', '.join(Cluster.model_fields)}"
        )
    whole = {"name": path.stem, **_with_defaults(mapping)}
    cluster, origin = schema.validate(Cluster, whole), Origin(file, text, document)
    if isinstance(cluster, Cluster):
        cluster._origin = origin
        return cluster
    raise schema.OptionsError([ConfigError(p.what, where=origin.place(p.path), hint=p.hint) for p in cluster])
