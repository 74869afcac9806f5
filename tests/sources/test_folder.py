import os

import pytest

from stx.errors import DataError
from stx.sources import base
from stx.sources.folder import open_source


def refused(path):
    with pytest.raises(DataError) as caught:
        open_source(path, None)
    return str(caught.value)


def test_classes_and_images_come_in_the_order_of_their_names(folder):
    found = open_source(folder, None)
    assert found.class_names == ("Ant", "cat", "dog")
    assert list(found.labels) == [0] * 4 + [1] * 4 + [2] * 4
    assert [found.name(index) for index in (0, 3, 5)] == ["Ant/0.png", "Ant/3.PNG", "cat/1.jpg"]
    assert found.read(5) == (folder / "cat" / "1.jpg").read_bytes()
    assert base.counts_of(found) == [4, 4, 4]


def test_hidden_files_and_loose_texts_are_passed_over(folder):
    before = open_source(folder, None)
    for name in (".DS_Store", "cat/.DS_Store", "cat/._0.png", "cat/Thumbs.db", "README.txt", "labels.csv"):
        (folder / name).write_bytes(b"x")
    (folder / "__MACOSX").mkdir()
    (folder / ".thumbnails").mkdir()
    after = open_source(folder, None)
    assert [after.name(index) for index in range(len(after.labels))] == [before.name(index) for index in range(12)]
    assert base.fingerprint(after) == base.fingerprint(before)


def test_what_is_no_image_in_a_class_folder_is_named_ten_at_a_time(folder):
    for number in range(12):
        (folder / "dog" / f"note{number:02}.txt").write_bytes(b"x")
    (folder / "cat" / "kittens").mkdir()
    message = refused(folder)
    assert message.startswith(f"{folder}\n  13 entries of class folders are no image:\n    cat/kittens\n")
    assert "dog/note08.txt" in message
    assert "dog/note09.txt" not in message
    assert "... and 3 more" in message
    assert "one level deep" in message


def test_images_outside_of_class_folders_are_named(folder):
    (folder / "x.jpg").write_bytes(b"x")
    assert "1 image lies in no class folder:\n    x.jpg" in refused(folder)


def test_a_missing_folder_an_empty_one_and_a_file_are_refused(tmp_path):
    assert "No such file" in refused(tmp_path / "nowhere")
    assert "no class folders" in refused(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    assert "Not a directory" in refused(tmp_path / "file")


def test_one_class_and_an_empty_class_are_refused(folder):
    (folder / "empty").mkdir()
    assert "1 class has no image, of 4:\n    empty" in refused(folder)
    (folder / "empty").rmdir()
    for name in ("cat", "dog"):
        (folder / name).rename(folder / f".{name}")
    assert "one class only (Ant)" in refused(folder)


def test_names_that_are_no_text_can_be_read_and_printed(folder, picture):
    odd = os.fsencode(folder / "cat") + b"/\xff.png"
    with open(odd, "wb") as stream:
        stream.write(picture(1))
    found = open_source(folder, None)
    names = [found.name(index) for index in range(len(found.labels))]
    assert "cat/\\xff.png" in names
    assert found.read(names.index("cat/\\xff.png")) == picture(1)
    assert base.fingerprint(found)["files"] == 13
    os.rename(os.fsencode(folder / "cat"), os.fsencode(folder) + b"/\xfe")
    assert "the class folder \\xfe has a name that is not UTF-8" in refused(folder)


def test_the_fingerprint_sees_names_and_sizes(folder):
    before = base.fingerprint(open_source(folder, None))
    with (folder / "cat" / "0.png").open("ab") as stream:
        stream.write(b"x")
    assert base.fingerprint(open_source(folder, None)) != before
