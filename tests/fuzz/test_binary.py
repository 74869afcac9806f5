"""Arrays, tensors, tars, shards and checkpoints that others may have written, in bounded time and memory."""

import io
import itertools
import json
import os
import pickle
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from stx import npy, records, tar
from stx.data import shards
from stx.data.features import FeaturesInfo
from stx.data.images import ImagesInfo
from stx.data.latents import LatentsInfo
from stx.data.shards import Sample, ShardSet
from stx.errors import DataError, StxError
from stx.sources import tars
from stx.worker import attempt as attempts
from stx.worker import checkpoint as checkpoints
from stx.worker import tensors
from stx.worker.checkpoint import Slice
from tests.fuzz import mutations

COUNT = 250
ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)


def tensors_file(path: Path) -> bytes:
    data = b"".join(bytes(chunk) for chunk in tensors.chunks({"a": torch.arange(6.0), "b": torch.zeros(2, 3).bool()}))
    path.write_bytes(data)
    return data


def make_shards(folder: Path) -> None:
    samples = [Sample(shards.key_of(n), {"a.npy": shards.npy_bytes(ARRAY[n]), "cls": b"%d" % n}) for n in range(2)]
    shards.publish_shard(shards.shard_path(folder, "train", 0), samples)
    shards.publish_index(folder, "train", num_shards=1)


def use_shards(folder: Path) -> None:
    found = ShardSet(folder, "train")
    found.gather("a.npy", range(found.num_samples))
    found.content("a.npy", 0)
    _ = found.labels
    list(found.samples())
    found.verify()


def make_checkpoint(folder: Path) -> None:
    aside, final = folder / ".8-001.aside", folder / "8-001"
    aside.mkdir(parents=True)
    entry = checkpoints.write_rank_file(aside, rank=0, slices=[Slice("master", "w", 0, torch.arange(6.0))])
    manifest = {"format": 1, "files": [entry], "shapes": {"w": [2, 3]}, "images": 8, "progress": {"step": 1}}
    checkpoints.complete(aside, final, manifest=manifest | {"key": "k", "recipe": 1, "science_digest": "s"})


def use_checkpoint(folder: Path) -> None:
    path = folder / "8-001"
    if checkpoints.verify(path) is None:
        checkpoints.opened(path).read("master")


def refused(action, where: Path) -> str:
    with pytest.raises(StxError) as error:
        action()
    assert str(where) in str(error.value.where)
    assert len(str(error.value)) < 2000
    return str(error.value)


def survives(action, where: Path) -> None:
    """It answers, or refuses by name."""
    try:
        action()
    except StxError as error:
        assert str(where) in str(error), error


@pytest.mark.parametrize("count", [COUNT, pytest.param(5_000, marks=pytest.mark.full)])
def test_damaged_arrays_and_tensors_are_refused_by_name(count, tmp_path):
    array, weights = tmp_path / "a.npy", tmp_path / "a.safetensors"
    real_array, real_weights = shards.npy_bytes(ARRAY), tensors_file(weights)
    prefixes = [(real_array[:n], real_weights[:n]) for n in range(0, len(real_weights), 7)]
    mutants = zip(
        mutations.damaged(real_array, seed=1, count=count),
        mutations.damaged(real_weights, seed=1, count=count),
        strict=True,
    )
    for one, other in (*prefixes, *mutants):
        array.write_bytes(one)
        weights.unlink()  # a map of the file before may be open
        weights.write_bytes(other)
        survives(lambda: npy.load(array, dtype=np.uint8, dims=4), array)
        survives(lambda: tensors.read(weights), weights)


def test_headers_of_tensors_that_lie_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    real = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}

    def header(**others) -> bytes:
        text = json.dumps(others).encode()
        return len(text).to_bytes(8, "little") + text

    assert tensors.read((path.write_bytes(header(a=real) + bytes(8)), path)[1])["a"].shape == (2,)
    for data in (
        header(a=real | {"dtype": "F7"}) + bytes(8),
        header(a=real | {"shape": [2**62, 4]}) + bytes(8),
        header(a=real | {"shape": [-2]}) + bytes(8),
        header(a=real | {"data_offsets": [0, 2**60]}) + bytes(8),
        header(a=real, b=real) + bytes(8),
        header(a=real | {"data_offsets": [8, 16]}) + bytes(16),
        header(a=real) + bytes(80),
        (2**63).to_bytes(8, "little") + bytes(100),
        (99 << 20).to_bytes(8, "little") + bytes(100),
        b"",
        b"\x02",
    ):
        path.write_bytes(data)
        assert "not a readable safetensors file" in refused(lambda: tensors.read(path), path)


def test_a_pickle_and_a_zip_are_named_and_never_opened(tmp_path):
    path = tmp_path / "weights.safetensors"
    torch.save({"a": torch.zeros(3)}, path)
    assert "this is a zip file" in refused(lambda: tensors.read(path), path)
    path.write_bytes(pickle.dumps({"a": [1] * 100}))
    message = refused(lambda: tensors.read(path), path)
    assert "this is a pickle, which can run code when opened" in message and "torch.load" in message
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"b")
    assert "this is a zip file" in refused(lambda: tensors.read(path), path)


def test_arrays_of_objects_in_fortran_order_or_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    assert "holds objects (a pickle, which is never read)" in refused(
        lambda: npy.load(path, dtype=np.uint8, dims=1), path
    )
    np.save(path, np.asfortranarray(np.zeros((2, 3))))
    assert "Fortran order" in refused(lambda: npy.load(path, dtype=np.float64, dims=2), path)
    np.save(path, np.zeros(3, dtype=[("a", "<f4")]))
    assert "no .npy file of numbers" in refused(lambda: npy.load(path, dtype=np.float32, dims=1), path)
    np.save(path, np.zeros((2, 3), dtype=np.float32))
    assert "is float32 of shape (2, 3), wanted is uint8" in refused(
        lambda: npy.load(path, dtype=np.uint8, dims=2), path
    )
    assert "wanted is float32 of 1 dimension" in refused(lambda: npy.load(path, dtype=np.float32, dims=1), path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(2, 3), }", b"(2, 10**9), }"[:9]))
    refused(lambda: npy.load(path, dtype=np.float32, dims=2), path)
    path.write_bytes(data[:-1])
    assert "damaged: it has 151 bytes, its header promises 152" in refused(
        lambda: npy.load(path, dtype=np.float32, dims=2), path
    )


def test_members_that_lead_out_of_a_tar_and_links_are_refused_by_name(tmp_path):
    path = tmp_path / "x.tar"
    for name, kind, told in (
        ("../../evil.png", tarfile.REGTYPE, "leads out of the tar"),
        ("/etc/a.cls", tarfile.REGTYPE, "leads out of the tar"),
        ("a.png", tarfile.SYMTYPE, "is a symbolic link"),
        ("a.cls", tarfile.LNKTYPE, "is a hard link"),
        ("a.png", tarfile.CHRTYPE, "is a device"),
        ("a\x1b[2J.png", tarfile.FIFOTYPE, "is a pipe"),
    ):
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        message = refused(lambda: tars.open_source(path, None), path)
        assert told in message and "\x1b" not in message
        assert "refused member" in refused(lambda: shards.read_shard(path), path)


def test_sizes_in_a_tar_lead_neither_backwards_nor_into_memory(tmp_path):
    path = tmp_path / "x.tar"
    for kind, size in ((tarfile.REGTYPE, -512), (tarfile.GNUTYPE_LONGNAME, 8 << 30), (tarfile.XHDTYPE, 1 << 40)):
        info = tarfile.TarInfo("a.cls")
        info.type, info.size = kind, size
        with path.open("wb") as stream:
            stream.write(info.tobuf(tarfile.GNU_FORMAT))
            stream.truncate(1 << 41)
        refused(lambda: tars.open_source(path, None), path)


@pytest.mark.parametrize("count", [COUNT, pytest.param(5_000, marks=pytest.mark.full)])
def test_damaged_tars_are_refused_by_name(count, tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a.cls", "b" * 150 + ".cls", "ü.cls"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    real = stream.getvalue().rstrip(b"\0") + bytes(1024)
    for data in (real, *mutations.damaged(real, seed=2, count=count)):
        survives(lambda data=data: list(tar.members(io.BytesIO(data), len(data), where=str(tmp_path))), tmp_path)


@pytest.mark.parametrize(
    ("make", "use", "name"),
    [(make_shards, use_shards, "train.index.json"), (make_checkpoint, use_checkpoint, "8-001/manifest.json")],
)
@pytest.mark.parametrize("count", [COUNT, pytest.param(5_000, marks=pytest.mark.full)])
def test_an_index_or_manifest_that_lies_is_refused_and_never_followed(make, use, name, count, tmp_path):
    make(tmp_path)
    use(tmp_path)
    path = tmp_path / name
    real = path.read_bytes()
    record = json.loads(real)
    for data in (
        *mutations.TEXTS,
        *mutations.damaged(real, seed=5, count=count),
        *mutations.swapped(record, seed=5, count=count),
    ):
        path.write_bytes(data)
        survives(lambda: use(tmp_path), tmp_path)


ATTEMPT = {
    "tag": "t",
    "experiment": "e",
    "number": 1,
    "spec": {"kind": "command", "recipe": 1, "science": {"argv": ["true"]}, "inputs": {}},
    "where": {"inputs": {}},
    "layout": {"ranks": 1},
    "inputs": {"a": {"kind": "images", "key": "k", "images": None, "path": "/s"}},
    "threads": 1,
    "hang_after_s": {"start": 1.0, "other": 2.0},
    "checkpoint": {"every_s": 30.0, "keep": 2, "max_stall": 0.01},
    "stop_lead_s": 9.0,
    "time_s": 3600.0,
    "science_digest": "d",
    "accept_code": False,
}
LATENTS = LatentsInfo(4, 8, 2, ("a", "b"), 1.0, 0.0, "k", 2, "fp32")
FEATURES = FeaturesInfo(2, (0.4, 0.7), "uniform", 0, 16, 8, "bf16", 2, 4)
IMAGES = ImagesInfo(32, 3, 2, ("a", "b"), {"train": 2})


@pytest.mark.parametrize(
    ("name", "record", "read"),
    [
        ("attempt.json", ATTEMPT, attempts.parse),
        ("latents.json", LATENTS.dump(), lambda folder: records.load(LatentsInfo, folder / "latents.json")),
        ("features.json", FEATURES.dump(), lambda folder: records.load(FeaturesInfo, folder / "features.json")),
        ("images.json", IMAGES.dump(), lambda folder: records.load(ImagesInfo, folder / "images.json")),
    ],
)
@pytest.mark.parametrize("count", [COUNT, pytest.param(5_000, marks=pytest.mark.full)])
def test_what_a_worker_is_told_is_read_with_its_types(name, record, read, count, tmp_path):
    path, real = tmp_path / name, records.dumps(record)
    path.write_bytes(real)
    read(tmp_path)
    mutants = [mutations.damaged(real, seed=9, count=count), mutations.swapped(json.loads(real), seed=9, count=count)]
    for data in itertools.chain(mutations.TEXTS, *mutants):
        path.write_bytes(data)
        survives(lambda: read(tmp_path), tmp_path)


@pytest.mark.parametrize("count", [COUNT // 5, pytest.param(5_000, marks=pytest.mark.full)])
def test_a_damaged_shard_is_never_wrong_numbers(count, tmp_path):
    make_shards(tmp_path)
    path = shards.shard_path(tmp_path, "train", 0)
    real = path.read_bytes()
    for data in mutations.damaged(real, seed=7, count=count):
        path.unlink()
        path.write_bytes(data)
        found = ShardSet(tmp_path, "train")
        try:
            assert (found.gather("a.npy", [0, 1]) == ARRAY).all()
        except DataError as error:
            assert "train-00000.tar" in str(error)


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from jobs import files
from stx import npy, records
from stx.config.load import read_document
from stx.errors import StxError
from stx.sources import tars
resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20))
path = Path(sys.argv[1])
tried = 0
for read in (
    lambda: records.read(path), lambda: records.load_lines(path), lambda: read_document(path),
    lambda: npy.load(path, dtype=np.uint8, dims=4), lambda: tars.open_source(path, None),
    lambda: records.read(path, limit=records.INDEX_BYTES),
):
    try:
        read()
        raise SystemExit(f"reader {tried} took {path}")
    except (StxError, files.Unreadable) as error:
        assert str(path) in str(error), error
    tried += 1
files.tail(path, 100)
print(tried)
"""


@pytest.mark.parametrize("kind", ["sparse", "pipe", "device"])
def test_endless_files_take_neither_memory_nor_time(kind, tmp_path):
    path = tmp_path / "x"
    if kind == "sparse":
        with path.open("wb") as stream:
            stream.write(b"[")
            stream.truncate(1 << 40)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path = Path("/dev/zero")
    code = LIMITED if kind == "sparse" else LIMITED.replace("files.tail(path, 100)", "")
    began = time.monotonic()
    search = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    argv, env = [sys.executable, "-c", code, str(path)], os.environ | {"PYTHONPATH": search}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert (done.returncode, done.stdout.strip()) == (0, "6"), done.stderr
    assert time.monotonic() - began < 100
