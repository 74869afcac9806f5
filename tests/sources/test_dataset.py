"""saved_dataset/ was written by datasets 5.2.0, save_to_disk(PATH, num_shards=2): six rows, row 3 from a file."""

import json
import shutil
from pathlib import Path

import pyarrow
import pytest

from stx.errors import DataError
from stx.sources import base
from stx.sources.dataset import open_source

SAVED = Path(__file__).parent / "saved_dataset"


@pytest.fixture
def saved(tmp_path):
    return shutil.copytree(SAVED, tmp_path / "saved")


def refused(path):
    with pytest.raises(DataError) as caught:
        open_source(path, None)
    return str(caught.value)


def edit(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_a_saved_dataset_is_read_in_the_order_of_its_files():
    found = open_source(SAVED, None)
    assert found.class_names == ("dog", "ant", "cat")
    assert list(found.labels) == [0, 1, 2, 2, 1, 0]
    assert [found.read(index)[:4] for index in (0, 3, 4)] == [b"\x89PNG", b"\x89PNG", b"\xff\xd8\xff\xe0"]
    assert found.name(0) == "row 0"
    assert found.name(3) == "row 3 (src-3.png)"
    assert base.fingerprint(found)["files"] == 2


def test_one_split_of_several_is_asked_for(saved, tmp_path):
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["saved"]}')
    message = refused(tmp_path)
    assert "holds several splits\n  give the folder of one of them: saved" in message


def test_what_is_no_saved_dataset_is_refused(tmp_path, saved):
    message = refused(tmp_path / "nowhere")
    assert "no dataset on disk: it has no dataset_info.json" in message
    assert "save_to_disk" in message
    (saved / "state.json").write_text("{")
    assert "state.json: not JSON" in refused(saved)


def test_columns_that_are_missing_or_doubled_are_named(saved):
    info = saved / "dataset_info.json"
    edit(info, lambda record: record["features"].update(fine={"_type": "ClassLabel", "names": ["a"]}))
    message = refused(saved)
    assert "2 columns of type ClassLabel (label, fine); its columns: image, label, id, fine" in message
    assert "select_columns" in message
    edit(info, lambda record: record.update(features={"id": {"dtype": "int64", "_type": "Value"}}))
    assert "no column of type Image" in refused(saved)


def test_a_damaged_or_missing_file_is_named(saved):
    path = saved / "data-00001-of-00002.arrow"
    path.write_bytes(path.read_bytes()[:-400])
    assert "data-00001-of-00002.arrow\n  cannot be read as an Arrow file" in refused(saved)
    path.unlink()
    assert "cannot be read as an Arrow file" in refused(saved)


def test_unlabelled_rows_and_images_outside_of_the_files_are_named(tmp_path, saved):
    image = pyarrow.array([{"bytes": None, "path": "/a/b.png"}, {"bytes": b"x", "path": None}])

    def write(labels):
        table = pyarrow.table({"image": image, "label": pyarrow.array(labels, pyarrow.int64())})
        with pyarrow.OSFile(str(saved / "one.arrow"), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as out:
            out.write_table(table)

    edit(saved / "state.json", lambda record: record.update(_data_files=[{"filename": "one.arrow"}]))
    edit(saved / "dataset_info.json", lambda record: record["features"]["label"].update(names=["ant", "cat"]))
    write([0, None])
    assert "1 row has no label" in refused(saved)
    write([0, -1])
    assert "1 class has no image, of 2" in refused(saved)
    write([0, 1])
    found = open_source(saved, None)
    assert found.read(1) == b"x"
    with pytest.raises(DataError, match="not stored in the dataset's files"):
        found.read(0)
