"""Every record that others may have written: damaged, swapped, endless, or no file at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stx import records
from stx.coordinator.journal import Reader as JournalReader
from stx.errors import StxError
from stx.report import history
from tests.fuzz import mutations, readers
from tests.fuzz.readers import READERS, Reader

COUNT = 120


def prepared(folder: Path, reader: Reader) -> Path:
    path = folder / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path != folder / readers.READERS["intent"].name and "attempts" in reader.name:
        intent = folder / readers.READERS["intent"].name
        intent.write_bytes(records.dumps(readers.INTENT))
        readers.attempt(folder).path.mkdir(exist_ok=True)
    return path


def answers(reader: Reader, folder: Path, data: bytes) -> None:
    """It answers, or refuses by name."""
    try:
        reader.read(folder)
    except StxError as error:
        assert not reader.tolerant, (error, data[:300])
        assert error.where and error.what and len(str(error)) < 2000, error
        assert str(folder) in error.where


@pytest.mark.parametrize("name", READERS)
def test_the_real_record_is_read(name, tmp_path):
    reader = READERS[name]
    prepared(tmp_path, reader).write_bytes(records.dumps(reader.record))
    reader.read(tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_record_is_refused_by_name_or_passed_over(name, tmp_path):
    damage(name, tmp_path, count=COUNT, seed=1)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(2, 5))
@pytest.mark.parametrize("name", READERS)
def test_any_damaged_record_is_refused_by_name_or_passed_over(name, seed, tmp_path):
    damage(name, tmp_path, count=2000, seed=seed)


def damage(name: str, folder: Path, *, count: int, seed: int) -> None:
    reader = READERS[name]
    path, real = prepared(folder, reader), records.dumps(reader.record)
    prefixes = [real[:length] for length in range(0, len(real), max(1, len(real) // 100))]
    for data in (
        *mutations.TEXTS,
        *prefixes,
        *mutations.damaged(real, seed=seed, count=count),
        *mutations.swapped(reader.record, seed=seed, count=count),
    ):
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        answers(reader, folder, data)


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_plain_file_or_endless_is_refused_at_once(name, tmp_path):
    reader = READERS[name]
    path = prepared(tmp_path, reader)
    os.mkfifo(path)
    answers(reader, tmp_path, b"a pipe")
    path.unlink()
    path.mkdir()
    answers(reader, tmp_path, b"a folder")
    path.rmdir()
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    answers(reader, tmp_path, b"a sparse file")


@pytest.mark.parametrize("count", [COUNT, pytest.param(5_000, marks=pytest.mark.full)])
def test_a_damaged_journal_is_refused_by_name(count, tmp_path):
    real = [records.dumps(line) for line in readers.JOURNAL]
    swapped = [
        [*real[:number], data, *real[number + 1 :]]
        for number, line in enumerate(readers.JOURNAL)
        for data in mutations.swapped(line, seed=number, count=count)
    ]
    damaged = [[data, real[1]] for data in mutations.damaged(real[0], seed=3, count=count)]
    for lines in (real, *swapped, *damaged, *([text, real[1]] for text in mutations.TEXTS)):
        readers.write_journal(tmp_path, lines)
        try:
            JournalReader(readers.experiment(tmp_path), readers.GRAPH).refresh()
        except StxError as error:
            assert str(readers.experiment(tmp_path).path) in str(error.where)


def test_journals_that_name_each_other_and_lines_without_end_are_refused(tmp_path):
    opened = json.loads(records.dumps(readers.JOURNAL[0]))
    opened["event"]["before"] = [1, 10]
    readers.write_journal(tmp_path, [records.dumps(opened)])
    with pytest.raises(StxError, match="a journal line that stx did not write"):
        JournalReader(readers.experiment(tmp_path), readers.GRAPH).refresh()
    path = readers.experiment(tmp_path).events(1)
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(StxError, match="a journal line that stx did not write"):
        JournalReader(readers.experiment(tmp_path), readers.GRAPH).refresh()


def test_lines_of_metrics_that_are_none_are_left_out_and_the_curve_goes_on(tmp_path, caplog):
    path = prepared(tmp_path, READERS["told attempt"]).with_name("metrics.jsonl")
    good = [records.dumps({"images": images, "loss": 0.5}) for images in (8, 16, 24)]
    bad = [
        b"[" * 100_000,
        b'{"images": "x"}',
        b'{"images": 1e999}',
        b"\xff",
        b"{}",
        b'{"images": null}',
        b'{"loss": 1}',
    ]
    path.write_bytes(b"".join(line + b"\n" for line in (good[0], *bad, *good[1:])))
    assert [point.images for point in history.curve(readers.stage(tmp_path))] == [8, 16, 24]
    assert "metrics.jsonl:2" in caplog.text


def test_through_the_command_line_a_damaged_record_is_one_message_and_exit_code_2(tmp_path):
    for name in ("store", "graph", "stage", "intent", "heartbeat"):
        reader = READERS[name]
        prepared(tmp_path, reader).write_bytes(records.dumps(reader.record))
    readers.write_journal(tmp_path, [records.dumps(line) for line in readers.JOURNAL[:1]])

    def status() -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "stx.cli", "status", "e", "--store", str(tmp_path)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    heartbeat, graph = tmp_path / READERS["heartbeat"].name, tmp_path / READERS["graph"].name
    heartbeat.write_bytes(b"[" * 100_000)
    done = status()
    assert done.returncode == 0 and "run:seed=0" in done.stdout, done.stderr
    graph.write_bytes(records.dumps({"experiment": "\x1b[2J", "nodes": [{}], "report": {}}))
    done = status()
    assert done.returncode == 2 and f"error: {graph}" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "\x1b" not in done.stderr
    graph.unlink()
    os.mkfifo(graph)
    done = status()
    assert done.returncode == 2 and "is a pipe, not a regular file" in done.stderr, done.stderr
