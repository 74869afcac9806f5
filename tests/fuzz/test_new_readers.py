"""Whoever reads what others may have written goes through the bounded readers: a newcomer that does not is found here.

Bounded readers: jobs/files.py, jobs/typed.py, stx/records.py, stx/npy.py, stx/tar.py, stx/worker/tensors.py.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
RAW = frozenset(
    {"loads", "load", "read_bytes", "read_text", "safe_open", "load_file", "fromfile", "memmap", "frombuf", "Unpickler"}
)
MODULES = {"json", "np", "numpy", "torch", "yaml", "pickle", "tarfile", "zipfile", "safetensors", "gzip"}
OWN = "what our own child process says"
SYSTEM = "a file of the kernel or of our own sources"
BOUNDED = "a bounded reader"
KNOWN = {
    "jobs/typed.py: json.loads": BOUNDED,
    "stx/npy.py: np.fromfile": BOUNDED,
    "stx/npy.py: np.memmap": BOUNDED,
    "stx/tar.py: tarfile.frombuf": BOUNDED,
    "stx/worker/tensors.py: safe_open": BOUNDED,
    "stx/data/shards.py: np.memmap": "of a file whose size was compared with the index's",
    "stx/worker/ranks.py: json.loads": "what another rank of ours says",
    "stx/worker/entry.py: json.loads": "what the command line that started us says",
    "stx/verbs/models.py: json.loads": OWN,
    "stx/verbs/sample.py: json.loads": OWN,
    "stx/verbs/machine_checks.py: json.loads": OWN,
    "stx/verbs/machine_checks.py: read_text": SYSTEM,
    "stx/verbs/completion.py: read_text": SYSTEM,
    "stx/coordinator/snapshot.py: read_bytes": SYSTEM,
    "stx/worker/versions.py: read_text": SYSTEM,
    "jobs/processes.py: read_text": SYSTEM,
    "jobs/slots.py: read_text": SYSTEM,
    "jobs/memory.py: read_text": SYSTEM,
    "jobs/launchers/slurm/probe.py: read_text": "what it wrote itself a moment ago, to see whether it comes back",
    "jobs/launchers/local.py: read_text": SYSTEM,
    "jobs/launchers/ray/up/ports.py: read_text": SYSTEM,
    "jobs/launchers/ray/line.py: json.loads": OWN,
    "jobs/launchers/ray/driver.py: json.loads": "what the process that started us says",
}


def raw_reads(path: Path) -> Iterator[str]:
    """Calls that read a format without a bound, and tarfile.open and zipfile.ZipFile."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in {"safe_open", "load_file"}:
            yield called.id
        if not isinstance(called, ast.Attribute):
            continue
        base = called.value
        while isinstance(base, ast.Attribute):
            base = base.value
        module = base.id if isinstance(base, ast.Name) else ""
        if called.attr in {"read_bytes", "read_text"}:
            yield called.attr
        elif module in MODULES and (
            called.attr in RAW or (module, called.attr) in {("tarfile", "open"), ("gzip", "open")}
        ):
            yield f"{module}.{called.attr}"


def test_nothing_reads_a_format_but_through_the_bounded_readers():
    sources = [path for package in ("stx", "jobs") for path in sorted((ROOT / package).rglob("*.py"))]
    found = {
        f"{path.relative_to(ROOT).as_posix()}: {call}"
        for path in sources
        if path.name != "contract.py"
        for call in raw_reads(path)
    }
    new = sorted(found - set(KNOWN))
    assert not new, f"read through stx.records, stx.npy, stx.tar or stx.worker.tensors, and fuzz it here: {new}"
    assert not set(KNOWN) - found, "no such call any more"
