"""W&B in offline mode: its own files, read by its own reader."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stx.errors import BackendError
from stx.export import wandb as exporter
from stx.export.runs import runs

BLOCK = 32768

pytestmark = pytest.mark.slow


def send(scene: Any) -> dict[str, tuple[int, int]]:
    folder = scene.store.experiment("e").export
    sent = exporter.send(runs(scene.store, scene.graph), folder, experiment="e", project="p")
    return {one.name: (one.rows, one.late) for one in sent}


def kept(scene: Any) -> list[dict[str, float]]:
    """The rows in W&B's own files."""
    from wandb.proto import wandb_internal_pb2 as protocol

    rows = []
    for path in sorted(scene.store.experiment("e").export.glob("wandb/offline-run-*/*.wandb")):
        for data in transactions(path.read_bytes()):
            record = protocol.Record()
            record.ParseFromString(data)
            if record.HasField("history"):
                items = {one.key or "/".join(one.nested_key): one.value_json for one in record.history.item}
                rows.append({name: json.loads(value) for name, value in items.items() if not name.startswith("_")})
    return rows


def transactions(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format after a header of 7 bytes."""
    place, parts = 7, b""
    while place + 7 <= len(data):
        left = BLOCK - place % BLOCK
        if left < 7:  # the rest of a block that has no room for a header
            place += left
            continue
        length, form = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if form in {1, 4}:  # the whole record, or its end
            yield parts
            parts = b""


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def test_rows_are_kept_by_images_and_sent_once(scene: Any) -> None:
    assert send(scene) == {"run:seed=0": (5, 0), "scores": (1, 0)}
    rows = kept(scene)
    assert {"images": 48, "train/loss": 0.5} in rows
    assert {"images": 64, "scores/frechet_distance": 2.0} in rows
    assert len(rows) == 6
    assert send(scene) == {"run:seed=0": (0, 0), "scores": (0, 0)}
    assert len(kept(scene)) == 6
    scene.log(2, (96,), loss=0.25)
    assert send(scene) == {"run:seed=0": (1, 0), "scores": (0, 0)}
    assert {"images": 96, "train/loss": 0.25} in kept(scene)
    assert len(kept(scene)) == 7


def test_a_score_below_one_that_was_sent_is_told_and_not_sent(scene: Any) -> None:
    scene.score(128, distance=1.0)
    send(scene)
    scene.store.stage("evaluate", scene.scores.key).part("evaluate", 64).artifact.rename(scene.store.root / "aside")
    (scene.store.experiment("e").export / exporter.SENT).unlink()
    send(scene)
    (scene.store.root / "aside").rename(scene.store.stage("evaluate", scene.scores.key).part("evaluate", 64).artifact)
    assert send(scene)["scores"] == (0, 1)


def test_without_a_login_the_error_says_what_to_do(scene: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(BackendError, match="wandb login"):
        send(scene)
