"""A checkpoint of W ranks at ZeRO stage s is restored by any W' ranks at any s': W and W' of 1, 2, 4, every stage.

The reader has, bit for bit, what the writer had (masters, moments, both EMAs, Adam's step), its working weights are
these masters before the first forward pass, its images are the writer's next ones, and so are, to 1e-6, its losses.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stx import records

PLAYERS = Path(__file__).with_name("players.py")
WORLDS, STAGES, PRECISIONS = (1, 2, 4), (0, 1, 2, 3), ("fp32", "bf16_autocast", "bf16_weights")
LOSSES = {"fp32": 1e-6, "bf16_autocast": 1e-3, "bf16_weights": 1e-3}
# Odd sizes: 3 elements for 4 ranks, 17 for 2 and 4, and nearly every weight is padded at 4.
MODEL = {"depth": 2, "width": 12, "heads": 3, "patch": 1}
NUM_PARAMETERS, SECTIONS = 39, 5


def places(precision):
    """All (W, s); bf16 weights do not go with ZeRO 0."""
    return list(itertools.product(WORLDS, STAGES[1:] if precision == "bf16_weights" else STAGES))


def every(precision):
    """All pairs of a writer and a reader."""
    return list(itertools.product(places(precision), repeat=2))


# Four ranks in as few runs as possible; test_ranks.py goes from one to two and back.
SAMPLE = [((1, 0), (4, 3)), ((4, 1), (1, 2))]


@pytest.fixture
def played(new_runs, tmp_path):
    """Lets the writer and the reader of every pair play; what both told, by pair."""

    def played(pairs, *, precision):
        def attempt(runs, place):
            options = {"micro": 2, "layout": {"zero_stage": place[1]}, "model": MODEL, "precision": precision}
            head = runs.head | {"projector_width": 17}
            made = runs.attempt(ranks=place[0], wants=(4096,), ema_decay=[0.9, 0.5], alignment=head, **options)
            return str(made.folder.path)

        listed = dict.fromkeys(writer for writer, _ in pairs)
        stores = {writer: new_runs(f"from {writer}", channels=3, size=3) for writer in listed}
        writers = {writer: attempt(runs, writer) for writer, runs in stores.items()}
        readers = {pair: attempt(stores[pair[0]], pair[1]) for pair in pairs}
        tasks = [(writer[0], "write", folder) for writer, folder in writers.items()]
        tasks += [(pair[1][0], "read", folder, writers[pair[0]]) for pair, folder in readers.items()]
        file = tmp_path / "tasks.json"
        file.write_text(json.dumps({world: [task[1:] for task in tasks if task[0] == world] for world in WORLDS}))
        play(file)
        return {pair: (told(writers[pair[0]]), told(folder)) for pair, folder in readers.items()}

    return played


def play(file):
    command = [sys.executable, "-W", "ignore", PLAYERS, file]
    own = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]


def told(folder):
    return records.read(Path(folder, "told.json"))


def check(found, *, precision):
    for pair, (writer, reader) in found.items():
        assert len(writer["state"]) == NUM_PARAMETERS * SECTIONS + 1, pair
        assert reader["state"] == writer["state"], pair
        assert reader["working"] == reader["cast"], pair
        assert reader["rows"] == writer["rows"], pair
        expected = {n: pytest.approx(loss, rel=LOSSES[precision]) for n, loss in writer["losses"].items()}
        assert len(expected) == 20, pair
        assert reader["losses"] == expected, pair


@pytest.mark.slow
def test_a_checkpoint_is_restored_by_another_number_of_ranks_and_zero_stage(played):
    check(played(SAMPLE, precision="fp32"), precision="fp32")


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_checkpoint_of_any_layout_is_restored_in_any_other(played, precision):
    check(played(every(precision), precision=precision), precision=precision)
