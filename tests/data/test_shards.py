import errno
import io
import os
import tarfile

import numpy as np
import pytest
import torch
import webdataset

from stx import records
from stx.data import shards
from stx.data.shards import Sample, ShardSet, key_of, npy_bytes, publish_index, publish_shard, read_shard, shard_path
from stx.errors import DataError

SIZES = (5, 3, 1)


def arrays(count):
    return np.arange(count * 6, dtype=np.float32).reshape(count, 2, 3)


def samples_of(first, count):
    values = arrays(sum(SIZES))
    return [
        Sample(key_of(i), {"a.npy": npy_bytes(values[i]), "cls": str(i % 12).encode()})
        for i in range(first, first + count)
    ]


@pytest.fixture
def folder(tmp_path):
    payload = tmp_path / "stage" / "payload"
    payload.mkdir(parents=True)
    first = 0
    for number, size in enumerate(SIZES):
        assert publish_shard(shard_path(payload, "train", number), samples_of(first, size))
        first += size
    assert publish_index(payload, "train", num_shards=len(SIZES))
    return payload


def test_two_writes_have_equal_bytes(tmp_path):
    paths = [tmp_path / "one.tar", tmp_path / "two.tar"]
    for path in paths:
        publish_shard(path, samples_of(0, 4))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_members_are_sorted_and_carry_no_clock_and_no_owner(folder):
    with tarfile.open(shard_path(folder, "train", 0)) as tar:
        members = tar.getmembers()
    assert {(member.mtime, member.uid, member.gid, member.uname, member.gname) for member in members} == {
        (0, 0, 0, "", "")
    }
    assert [member.name for member in members] == sorted(member.name for member in members)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its reader leaves the file open
def test_the_webdataset_library_reads_a_shard(folder):
    dataset = webdataset.WebDataset(str(shard_path(folder, "train", 0)), shardshuffle=False).decode()
    found = list(dataset)
    assert [sample["__key__"] for sample in found] == [key_of(i) for i in range(5)]
    assert [sample["cls"] for sample in found] == [0, 1, 2, 3, 4]
    assert np.array_equal(np.stack([sample["a.npy"] for sample in found]), arrays(9)[:5])


def test_gather_reads_any_positions_in_any_order(folder):
    found, wanted = ShardSet(folder, "train"), [8, 0, 7, 0, 5, 4]
    assert found.sizes == SIZES
    assert found.num_samples == 9
    assert np.array_equal(found.gather("a.npy", wanted), arrays(9)[wanted])
    assert found.gather("a.npy", wanted, dtype=np.float16).dtype == np.float16
    assert found.gather("a.npy", []).shape == (0, 2, 3)
    assert found.labels.tolist() == [i % 12 for i in range(9)]
    assert [sample.key for sample in found.samples()] == [key_of(i) for i in range(9)]
    found.verify()


def test_no_more_shards_are_mapped_than_a_process_may_open(folder, monkeypatch):
    monkeypatch.setattr(shards, "KEPT_MAPS", 2)
    found = ShardSet(folder, "train")
    for wanted in ([0, 8, 5], [5, 1], [8, 8], [2, 6, 8]):
        assert np.array_equal(found.gather("a.npy", wanted), arrays(9)[wanted])
        assert len(found._maps) <= 2


def test_a_published_shard_and_index_stay(folder):
    path = shard_path(folder, "train", 0)
    before = path.read_bytes()
    assert not publish_shard(path, samples_of(2, 2))
    assert not publish_index(folder, "train", num_shards=1)
    assert path.read_bytes() == before


def test_the_index_is_the_same_whoever_makes_it(folder):
    path = shards.index_path(folder, "train")
    before = path.read_bytes()
    path.unlink()
    beats = []
    publish_index(folder, "train", num_shards=len(SIZES), beat=lambda: beats.append(path.exists()))
    assert beats == [False] * len(SIZES), "one for each shard, before the index stands"
    assert path.read_bytes() == before
    shard = records.read(path)["shards"][0]
    assert set(shard) == {"name", "bytes", "sha256", "count", "labels", "fields"}


def damage(path, *, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def place_of(path, name):
    with tarfile.open(path) as tar:
        return tar.getmember(name).offset_data


def complaint(action):
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


def test_a_flipped_bit_names_shard_and_sample_at_the_first_read(folder):
    path = shard_path(folder, "train", 1)
    damage(path, at=place_of(path, "000000006.a.npy") + 130)
    found = ShardSet(folder, "train")
    assert np.array_equal(found.gather("a.npy", [0, 5, 7]), arrays(9)[[0, 5, 7]])
    for action in (lambda: found.gather("a.npy", [0, 6]), found.verify):
        message = complaint(action)
        assert "train-00001.tar" in message
        assert "sample 000000006 (a.npy)" in message
        assert "submit again" in message


def test_a_flipped_label_is_found(folder):
    path = shard_path(folder, "train", 0)
    damage(path, at=place_of(path, "000000003.cls"))
    assert "sample 000000003 (cls)" in complaint(ShardSet(folder, "train").verify)


@pytest.mark.parametrize(("kept", "named"), [(4000, "000000001"), (700, "000000000"), (0, "the start")])
def test_a_truncated_shard_names_where_it_ends(folder, kept, named):
    path = shard_path(folder, "train", 0)
    os.truncate(path, kept)
    found = ShardSet(folder, "train")
    for action in (lambda: found.gather("a.npy", [0]), found.verify):
        message = complaint(action)
        assert "train-00000.tar" in message
        assert named in message


def test_a_shard_without_its_last_samples_says_how_many_are_left(folder):
    path = shard_path(folder, "train", 0)
    path.unlink()
    publish_shard(path, samples_of(0, 3))
    assert "truncated after 3 of 5 samples" in complaint(ShardSet(folder, "train").verify)


def test_a_missing_shard_is_named(folder):
    shard_path(folder, "train", 2).unlink()
    found = ShardSet(folder, "train")
    for action in (lambda: found.gather("a.npy", [8]), found.verify):
        message = complaint(action)
        assert "missing" in message
        assert "train-00002.tar" in message
    assert found.gather("a.npy", [0]).shape == (1, 2, 3)


def test_a_folder_without_index_is_refused(tmp_path):
    assert "no index" in complaint(lambda: ShardSet(tmp_path, "train"))


@pytest.mark.parametrize("name", ["../evil.cls", "/etc/evil.cls", "a/b.cls", "noextension", "..cls", ".hidden"])
def test_members_that_could_escape_are_refused(tmp_path, name):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo(name)
        info.size = 1
        tar.addfile(info, io.BytesIO(b"1"))
    assert "refused member" in complaint(lambda: read_shard(path))


def test_links_are_refused(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("a.cls")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    assert "refused member" in complaint(lambda: read_shard(path))


def test_pickled_arrays_are_refused(tmp_path):
    path, stream = tmp_path / "x.tar", io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    publish_shard(path, [Sample("a", {"x.npy": stream.getvalue()})])
    assert "holds objects" in complaint(lambda: shards.describe(path))
    with pytest.raises(ValueError, match="pickle"):
        npy_bytes(np.array([{}], dtype=object))


def test_what_is_no_array_is_refused(tmp_path):
    path = tmp_path / "x.tar"
    publish_shard(path, [Sample("a", {"x.npy": b"not an array"})])
    assert "a.x.npy\n  is no .npy file" in complaint(lambda: shards.describe(path))


def test_samples_of_unequal_fields_or_shapes_are_refused(tmp_path):
    first, second = tmp_path / "1.tar", tmp_path / "2.tar"
    publish_shard(first, [Sample("a", {"cls": b"1"}), Sample("b", {"png": b"1"})])
    publish_shard(
        second, [Sample("a", {"x.npy": npy_bytes(np.zeros(1))}), Sample("b", {"x.npy": npy_bytes(np.zeros(2))})]
    )
    assert "sample b has ['png']" in complaint(lambda: shards.describe(first))
    assert "differ in shape" in complaint(lambda: shards.describe(second))


@pytest.mark.parametrize("step", ["write", "fsync", "link"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, step):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space"):
        publish_shard(tmp_path / "train-00000.tar", samples_of(0, 2))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_arrays_can_become_tensors_without_a_warning(folder):
    assert torch.from_numpy(ShardSet(folder, "train").gather("a.npy", [1])).shape == (1, 2, 3)
