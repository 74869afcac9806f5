from pathlib import Path

import pytest

from stx import records
from stx.errors import DataError, StoreError
from stx.paths import Store
from stx.worker import attempt as attempts
from stx.worker.attempt import Yielded


def test_an_attempt_knows_its_stage_its_inputs_and_its_rank(workshop, as_source, tmp_path):
    latents = as_source(workshop.attempt("latents", science={}))
    workshop.attempt("train", science={"seed": 3}, inputs={"latents": latents})
    attempt = workshop.attempt("train", science={"seed": 3}, inputs={"latents": latents})
    assert attempt.stage.path.parent.parent == tmp_path / "store"
    assert attempt.stage == Store(tmp_path / "store").stage("train", attempt.key)
    assert attempt.input("latents").payload == latents.path / "payload"
    assert (attempt.number, attempt.rank, attempt.world_size, attempt.science["seed"]) == (2, 0, 1, 3)


def test_wanted_counts_are_reread(workshop):
    attempt = workshop.attempt("train", science={}, wants=(40,))
    assert attempt.wanted() == {40}
    records.write(attempt.stage.mark("another"), {"images": [20, 60]})
    assert attempt.wanted() == {20, 40, 60}


def test_leaving_is_asked_for_and_says_what_it_left(workshop, stop):
    attempt = workshop.attempt("classifier", science={})
    attempt.leave_if_asked(images=1)
    stop.now()
    with pytest.raises(Yielded):
        attempt.leave_if_asked(images=2)
    assert attempt.notes == {"images": 2}


def test_a_malformed_attempt_record_is_named(workshop):
    folder = workshop.attempt("classifier", science={}).folder
    records.write(folder.attempt, {"tag": "x"})
    with pytest.raises(StoreError, match=r"attempt\.json"):
        attempts.parse(folder.path)


def test_an_external_file_that_changed_is_refused(workshop, tmp_path):
    attempt, file = workshop.attempt("freeze", science={}), tmp_path / "teacher.pt"
    file.write_bytes(b"one")
    attempts.check_external(attempt, name="checkpoint", path=file)
    attempts.check_external(attempt, name="checkpoint", path=file)
    file.write_bytes(b"two")
    with pytest.raises(DataError, match="checkpoint changed since"):
        attempts.check_external(attempt, name="checkpoint", path=file)


def test_a_folder_has_a_fingerprint_and_a_missing_path_is_named(tmp_path):
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a").write_bytes(b"1234")
    seen = attempts.fingerprint(folder)
    (folder / "deep" / "b").write_bytes(b"")
    assert seen["files"] == 1
    assert attempts.fingerprint(folder) != seen
    with pytest.raises(DataError, match="nowhere"):
        attempts.fingerprint(Path("nowhere"))
