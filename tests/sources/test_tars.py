import pytest

from stx.errors import DataError
from stx.sources import base
from stx.sources.tars import open_source


@pytest.fixture
def tars(tmp_path, write_tar, picture):
    """Two tars of three samples: labels 0, 1, 2 and 2, 1, 0."""
    for tar in range(2):
        members = []
        for place in range(3):
            label = place if tar == 0 else 2 - place
            members.append((f"train/img{place}.jpg", picture(10 * tar + place, form="jpeg")))
            members.append((f"train/img{place}.json", b"{}"))
            members.append((f"train/img{place}.cls", b"%d\n" % label))
        write_tar(tmp_path / f"train-{tar:03}.tar", members)
    return tmp_path


def refused(path, class_names=None):
    with pytest.raises(DataError) as caught:
        open_source(path, class_names)
    return str(caught.value)


@pytest.mark.parametrize("pattern", ["", "train-{000..001}.tar", "train-*.tar", "train-00[01].tar"])
def test_a_folder_braces_and_a_glob_name_the_same_tars(tars, pattern, picture):
    found = open_source(tars / pattern, None)
    assert list(found.labels) == [0, 1, 2, 2, 1, 0]
    assert found.class_names == ("0", "1", "2")
    assert [found.name(index) for index in (1, 3)] == ["train-000.tar: train/img1", "train-001.tar: train/img0"]
    assert found.read(4) == picture(11, form="jpeg")
    assert base.fingerprint(found)["files"] == 2


def test_one_tar_is_a_source(tars):
    assert list(open_source(tars / "train-001.tar", None).labels) == [2, 1, 0]


def test_numbers_may_be_named(tars):
    assert open_source(tars, ("ant", "cat", "dog")).class_names == ("ant", "cat", "dog")
    assert "label 2 is none of the 2 classes" in refused(tars, ("ant", "cat"))
    assert "1 class has no image, of 4:\n    eel" in refused(tars, ("ant", "cat", "dog", "eel"))


def test_labels_may_be_names(tmp_path, write_tar, picture):
    members = [
        (f"{n}.{e}", c) for n, w in enumerate((b"dog", b"cat", b"dog")) for e, c in (("webp", picture(n)), ("cls", w))
    ]
    write_tar(tmp_path / "a.tar", members)
    found = open_source(tmp_path / "a.tar", None)
    assert found.class_names == ("cat", "dog")
    assert list(found.labels) == [1, 0, 1]
    assert 'a .cls says "dog"' in refused(tmp_path / "a.tar", ("cat", "dog"))


def test_labels_that_do_not_count_from_zero_are_refused(tmp_path, write_tar, picture):
    members = [(f"{n}.{e}", c) for n in (1, 2) for e, c in (("png", picture(n)), ("cls", b"%d" % n))]
    write_tar(tmp_path / "a.tar", members)
    assert "labels count from 0" in refused(tmp_path)
    write_tar(tmp_path / "a.tar", [*members, ("3.png", picture(3)), ("3.cls", b"-1")])
    assert "no image" in refused(tmp_path)
    write_tar(
        tmp_path / "a.tar", [("0.png", picture(3)), ("0.cls", b"0"), ("1.png", picture(3)), ("1.cls", b"999999999999")]
    )
    assert "label 999999999999 among 2 images" in refused(tmp_path)


def test_an_image_without_a_label_and_the_other_way_round_are_named(tmp_path, write_tar, picture):
    write_tar(tmp_path / "a.tar", [("a.png", picture(0)), ("b.cls", b"0"), ("c.png", picture(1)), ("c.cls", b"1")])
    message = refused(tmp_path)
    assert "2 samples are no pair of image and label:\n    a: no cls\n    b: no image" in message
    write_tar(tmp_path / "a.tar", [("a.png", picture(0)), ("a.jpg", picture(0)), ("a.cls", b"0")])
    assert "sample a has two images" in refused(tmp_path)


def test_missing_and_unmatched_tars_are_named(tars):
    message = refused(tars / "train-{000..003}.tar")
    assert "2 of 4 tars are missing" in message
    assert "train-002.tar" in message
    assert "no tar matches" in refused(tars / "x-*.tar")
    (tars / "empty").mkdir()
    assert "no tar matches" in refused(tars / "empty")


def test_a_compressed_a_truncated_and_a_foreign_file_are_refused(tars, write_tar, picture):
    write_tar(tars / "b.tar", [("a.png", picture(0)), ("a.cls", b"0")], mode="w:gz")
    assert "cannot be read as a tar" in refused(tars / "b.tar")
    (tars / "c.tar").write_bytes(b"no tar")
    assert "cannot be read as a tar" in refused(tars / "c.tar")
    path = tars / "train-000.tar"
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"train/img2.jpg") + 700])
    assert "cannot be read as a tar" in refused(path)
    path.write_bytes(data[: data.index(b"train/img2.json") - 600])
    assert "truncated within 'train/img2.jpg'" in refused(path)


def test_hidden_members_and_folders_are_passed_over(tmp_path, write_tar, picture):
    members = [(f"{n}.{e}", c) for n in (0, 1) for e, c in (("png", picture(n)), ("cls", b"%d" % n))]
    write_tar(tmp_path / "a.tar", [("._0.png", b"x"), *members, (".DS_Store", b"x"), ("notes.txt", b"x")])
    assert list(open_source(tmp_path, None).labels) == [0, 1]
