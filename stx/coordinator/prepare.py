"""Before anything is queued: is this a store, may we write, has it hard links; then the experiment's own files."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from jobs import files
from jobs.outcome import FULL, cause_of
from stx import records, sharing
from stx.coordinator import lease
from stx.coordinator.attempts import unmark_removed
from stx.errors import LeaseHeld, StoreError
from stx.paths import Store
from stx.spec import Graph

FORMAT = 1
OTHER_NAME = "give yours another `name:`; it shares every finished stage. stx status shows this one"


def prepare(store: Store, graph: Graph, text: str) -> None:
    """Make or check the store, and write experiment.yaml and graph.json. LeaseHeld if a live coordinator drives another
    graph under this name. Marks of stages that an edit removed are taken away; submitting never cancels a job.
    """
    check_store(store)
    experiment = store.experiment(graph.experiment)
    with writing(experiment.path):
        for folder in (store.experiments, experiment.path, experiment.lease):
            files.make_dir(folder)
        sharing.claim(experiment)
        sharing.refuse_other(experiment, hint=OTHER_NAME)
        old, new = records.find(experiment.graph, limit=records.GRAPH_BYTES), graph.dump()
        if old is None or records.dumps(old) != records.dumps(new):
            if lease.holder(experiment) is not None:
                raise LeaseHeld("another coordinator drives another version of it", where=str(experiment.path))
            records.write(experiment.graph, new)
            before = {node["key"]: node["spec"]["kind"] for node in old["nodes"]} if old else {}
            unmark_removed(store, experiment=graph.experiment, old=before, kept={node.key for node in graph.nodes})
        if files.read(experiment.file) != text.encode():
            files.write(experiment.file, text.encode())


def check_store(store: Store) -> None:
    """StoreError unless files can be written and hard-linked here, in the one format there is. Makes store.json."""
    with writing(store.root):
        store.root.mkdir(parents=True, exist_ok=True)
        store = Store(store.root.resolve())
        sharing.open_store(store)
        _try_links(store.root)
        files.make_dir(store.stages)
        records.publish(store.record, {"id": secrets.token_hex(4), "format": FORMAT})
    check_format(store)


def check_format(store: Store) -> None:
    """StoreError where store.json is there and says another format, or cannot be read."""
    try:
        found = records.find(store.record)
    except StoreError as error:
        hint = (
            "stx did not write it, or the disk damaged it; restore it; or, when no job of this store runs, move this "
            "one entry away: the next submit makes another"
        )
        raise StoreError(error.what, where=str(store.record), hint=hint) from error
    if found is not None and found.get("format") != FORMAT:
        raise StoreError(
            f"this store has format {str(found.get('format'))[:40]}, this version of stx knows format {FORMAT}",
            where=str(store.record),
            hint="use the version of stx that made it, or another --store",
        )


def _try_links(root: Path) -> None:
    probe = files.new_temp(root / "probe")
    twin = files.new_temp(root / "probe")
    try:
        files.write(probe, b"")
        try:
            os.link(probe, twin)
        except OSError as error:
            if cause_of(error.errno) is not None:  # this disk is full or broken, which says nothing of links
                raise
            raise StoreError(
                f"no hard links here ({error.strerror})",
                where=str(root),
                hint="stx publishes by link(2); put the store on a file system that has it (local disk, NFS, Lustre)",
            ) from error
    finally:
        for path in (probe, twin):
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def writing(path: Path, *, flag: str = "--store") -> Iterator[None]:
    """Around whatever writes below `path`, which `flag` chose: a full disk or a missing permission is a StoreError."""
    try:
        with records.no_links():
            yield
    except OSError as error:
        if error.errno in FULL:
            words, hint = "the disk is full", f"free some space, or choose another {flag}"
        elif cause_of(error.errno) is not None:
            words = f"cannot be written: {error.strerror}"
            hint = f"its disk or file system fails: look there first, or choose another {flag}"
        else:
            words = f"cannot be written: {error.strerror}"
            hint = f"choose another {flag}, or ask its owner for permission to write"
        raise StoreError(words, where=str(path), hint=hint) from error
