import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stx import records
from stx.errors import DataError, StxError
from stx.worker import checkpoint as checkpoints
from stx.worker.checkpoint import Identity, Keeper, Slice
from stx.worker.ranks import ALONE

IDENTITY = Identity(key="key", recipe=1, science_digest="science")


def keeper(folder, *, attempt=1, keep=2, identity=IDENTITY):
    return Keeper(folder, attempt, identity, ALONE, keep)


def slices(value=0.0):
    weights = {"a": torch.arange(6.0) + value, "b": torch.full((4,), value)}
    return [Slice(section, name, 0, flat) for section in ("master", "ema") for name, flat in weights.items()]


def save(keeper, images, *, value=0.0):
    return keeper.save(images=images, slices=slices(value), shapes={"a": [2, 3], "b": [4]}, progress={"step": images})


def restore(folder, *, accept_code=False, **options):
    return keeper(folder, attempt=9, **options).restore(accept_code=accept_code)


def test_what_was_saved_is_read_back_with_its_shapes_and_progress(tmp_path):
    saved = save(keeper(tmp_path / "checkpoints"), 64, value=0.5)
    read = restore(tmp_path / "checkpoints")
    assert (read.path.name, read.images, read.progress) == ("64-001", 64, {"step": 64})
    assert read.manifest == saved.manifest
    assert torch.equal(read.read("master")["a"], torch.arange(6.0).reshape(2, 3) + 0.5)


def test_every_piece_of_a_save_and_of_a_restore_beats_the_heart(tmp_path, monkeypatch):
    plain = checkpoints.write_rank_file(tmp_path, rank=0, slices=slices())
    beats = []
    one = keeper(tmp_path / "checkpoints")
    one.beat = lambda: beats.append(1)
    monkeypatch.setattr(checkpoints, "_PIECE", 8)
    monkeypatch.setattr(records, "_PIECE", 16)
    saved = save(one, 64)
    written = saved.manifest["files"][0]
    assert written["sha256"] == plain["sha256"], "pieces are no other bytes"
    assert len(beats) == -(-written["bytes"] // 8), "8 bytes of length, the header and every tensor are whole pieces"
    beats.clear()
    read = one.restore(accept_code=False)
    assert len(beats) == -(-written["bytes"] // 16)
    beats.clear()
    read.fill([Slice(one.section, one.name, 0, torch.zeros_like(one.values)) for one in slices()])
    assert len(beats) == len(slices())
    read.read("master")
    assert len(beats) == len(slices()) + 2


def test_there_is_nothing_to_restore_at_first(tmp_path):
    assert restore(tmp_path / "checkpoints") is None


def test_the_newest_by_images_then_attempt_is_restored_and_the_oldest_removed(tmp_path):
    one, two = keeper(tmp_path, attempt=1), keeper(tmp_path, attempt=12)
    for images in (8, 16, 112):
        save(one, images)
    save(two, 112, value=1.0)
    assert [path.name for path in checkpoints.found(tmp_path)] == ["112-001", "112-012"]
    assert restore(tmp_path).path.name == "112-012"


def test_saving_a_count_twice_in_one_attempt_keeps_the_first(tmp_path):
    one = keeper(tmp_path)
    save(one, 8, value=1.0)
    assert save(one, 8, value=2.0).read("master")["b"][0] == 1.0


def damage_flip(path):
    data = bytearray((path / "rank-0.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "rank-0.safetensors").write_bytes(data)


def damage_cut(path):
    with (path / "rank-0.safetensors").open("r+b") as stream:
        stream.truncate(10)


def damage_manifest(path):
    (path / "manifest.json").write_bytes(b"{")


def damage_missing(path):
    (path / "rank-0.safetensors").unlink()


def damage_seconds(path):
    record = records.read(path / "manifest.json")
    records.write(path / "manifest.json", record | {"seconds": "long"})


DAMAGES = [damage_flip, damage_cut, damage_manifest, damage_missing, damage_seconds]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, caplog, damage):
    one = keeper(tmp_path)
    save(one, 8)
    damage(save(one, 16).path)
    second = keeper(tmp_path, attempt=2)
    assert second.restore(accept_code=False).images == 8
    assert "16-001 is damaged" in caplog.text
    save(second, 12)
    assert [path.name for path in checkpoints.found(tmp_path)] == ["8-001", "12-002"]


def test_should_resume_and_cannot_is_an_error(tmp_path):
    damage_flip(save(keeper(tmp_path), 8).path)
    with pytest.raises(DataError, match="should resume and cannot"):
        restore(tmp_path)


def test_other_science_code_is_refused_unless_accepted(tmp_path):
    save(keeper(tmp_path), 8)
    other = Identity(key="key", recipe=1, science_digest="other")
    with pytest.raises(StxError, match="--accept-code"):
        restore(tmp_path, identity=other)
    assert restore(tmp_path, identity=other, accept_code=True).images == 8
    with pytest.raises(DataError, match="another stage or recipe"):
        restore(tmp_path, identity=Identity(key="key", recipe=2, science_digest="science"), accept_code=True)


def test_a_slice_that_is_missing_is_an_error(tmp_path):
    part = [Slice("master", "a", 2, torch.arange(4.0))]
    saved = keeper(tmp_path).save(images=8, slices=part, shapes={"a": [6]}, progress={})
    with pytest.raises(DataError, match="master/a"):
        saved.read("master")
    half = torch.zeros(2)
    saved.fill([Slice("master", "a", 3, half)])
    assert half.tolist() == [1.0, 2.0]


def cut(flat, *, world_size):
    """The flat buffer of all tensors in equal ranges, as slices by name: what ZeRO ranks own."""
    total = sum(tensor.numel() for tensor in flat.values())
    size = -(-total // world_size)
    owned, begin = [[] for _ in range(world_size)], 0
    for name, tensor in flat.items():
        for rank in range(world_size):
            low, high = max(begin, rank * size), min(begin + tensor.numel(), (rank + 1) * size)
            if low < high:
                owned[rank].append(Slice("master", name, low - begin, tensor[low - begin : high - begin].clone()))
        begin += tensor.numel()
    return owned


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 17), min_size=1, max_size=6),
    writers=st.integers(1, 5),
    readers=st.integers(1, 5),
)
def test_any_number_of_ranks_reads_what_any_number_wrote(counts, writers, readers):
    flat = {f"p{number}": torch.randn(count) for number, count in enumerate(counts)}
    with tempfile.TemporaryDirectory() as folder:
        aside, final = Path(folder, "aside"), Path(folder, "8-001")
        aside.mkdir()
        owned = cut(flat, world_size=writers)
        listed = [checkpoints.write_rank_file(aside, rank=rank, slices=part) for rank, part in enumerate(owned)]
        shapes = {name: list(tensor.shape) for name, tensor in flat.items()}
        manifest = {"format": checkpoints.FORMAT, "files": listed, "shapes": shapes, "images": 8, "progress": {}}
        manifest |= {"key": "k", "recipe": 1, "science_digest": "s"}
        checkpoints.complete(aside, final, manifest=manifest)
        assert checkpoints.verify(final) is None
        read = checkpoints.opened(final)
        for wanted in cut(flat, world_size=readers):
            blank = [Slice(one.section, one.name, one.offset, torch.zeros_like(one.values)) for one in wanted]
            read.fill(blank)
            assert all(torch.equal(a.values, b.values) for a, b in zip(blank, wanted, strict=True))
        assert all(torch.equal(value, flat[name]) for name, value in read.read("master").items())


class Killed(BaseException):
    """The process ends here."""


def kill_at(point, monkeypatch):
    """Every write, fsync and rename counts twice, before and after; at `point` nothing more happens."""
    counter = itertools.count(1)

    def wrap(real):
        def faulty(*arguments, **options):
            if next(counter) >= point:
                raise Killed
            result = real(*arguments, **options)
            if next(counter) >= point:
                raise Killed
            return result

        return faulty

    for name in ("write", "fsync", "rename", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))
    return counter


def test_a_kill_at_any_point_of_a_save_leaves_the_old_or_the_new_checkpoint(tmp_path, monkeypatch):
    states = set()
    for point in itertools.count(1):
        folder = tmp_path / str(point)
        save(keeper(folder, keep=1), 8, value=8.0)
        with monkeypatch.context() as patch:
            kill_at(point, patch)
            try:
                save(keeper(folder, keep=1), 16, value=16.0)
                finished = True
            except Killed:
                finished = False
        survivor = restore(folder)
        assert survivor.read("master")["b"][0] == survivor.images
        states.add(survivor.images)
        save(keeper(folder, attempt=10, keep=1), 24, value=24.0)
        assert [path.name for path in folder.iterdir()] == ["24-010"]
        shutil.rmtree(folder)
        if finished:
            break
    assert states == {8, 16}
    assert point > 10


def test_the_manifest_lists_every_slice_and_who_wrote_it(tmp_path):
    manifest = records.read(save(keeper(tmp_path, attempt=3), 8).path / "manifest.json")
    assert manifest["files"][0]["slices"][0] == ["master", "a", 0, 6]
    assert (manifest["world_size"], manifest["attempt"], manifest["science_digest"]) == (1, 3, "science")


def test_a_save_is_expected_to_take_what_the_last_one_took(tmp_path):
    first, twice = keeper(tmp_path), [*slices(), *slices()]
    size = sum(one.values.nbytes for one in slices())
    assert first.expected_seconds(slices()) == size / checkpoints.ASSUMED_BYTES_PER_S
    manifest = save(first, 8).manifest
    written = manifest["files"][0]["bytes"]
    assert first.expected_seconds(twice) == pytest.approx(2 * size * first.save_seconds / written)
    second = keeper(tmp_path, attempt=2)
    second.restore(accept_code=False)
    assert second.expected_seconds(twice) == manifest["seconds"], "fewer bytes a rank: the store may be what is slow"
    many = [*twice] * written
    assert second.expected_seconds(many) == pytest.approx(2 * size * manifest["seconds"])
