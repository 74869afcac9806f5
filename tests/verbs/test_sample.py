"""What `stx sample` asks of the worker, and what it refuses. That the worker does it: tests/worker/test_grid.py, and
tests/integration/test_pictures.py through the command line.
"""

from pathlib import Path

import pytest

from stx import records
from stx.errors import ConfigError
from stx.paths import Store
from stx.spec import Artifact
from stx.verbs import sample

NAMES = ["3", "cat", "dog", "7", "eel", "fly", "gnu", "hen", "ibis", "jay"]
NOTHING = {"guidance": None, "interval": None, "steps": None, "solver": None}


@pytest.fixture
def place(tmp_path: Path, expand, monkeypatch) -> Store:
    """A store with the small experiment, of which images, latents and two milestones of phase1 are recorded."""
    monkeypatch.chdir(tmp_path)
    planned = expand()
    store = Store(tmp_path / "store")
    store.experiment("small").path.mkdir(parents=True)
    records.write(store.experiment("small").graph, planned.graph.dump())
    for name in ("images", "latents"):
        stage = store.stage(name, planned[name].key)
        stage.payload.mkdir(parents=True)
        records.write(stage.record, planned[name].spec.hashed())
    records.write(store.stage("images", planned["images"].key).payload / "images.json", {"class_names": NAMES})
    key = planned["phase1"].key
    for images in (160, 320):
        part = store.stage("train", key).part("train", images)
        part.path.mkdir(parents=True)
        records.write(part.artifact, Artifact("train", key, images, {}).dump())
    return store


@pytest.fixture
def ask(place):
    def ask(run="phase1", *, labels="all", at=None, num=None, seed=0, output=None, **sampler):
        wishes = sample.Wishes(run, labels, NOTHING | sampler, at, num, seed, output, None, as_json=False)
        return sample.request_of(wishes, store=place)

    return ask


def test_without_options_it_is_one_of_each_class_of_the_newest_milestone(ask, place, expand):
    request = ask()
    stage = place.stage("train", expand()["phase1"].key)
    assert request["milestone"] == str(stage.path / "milestones" / "320")
    assert Path(request["autoencoder"]).name.startswith("autoencoder-")
    assert request["output"] == "small-phase1-320.png"
    assert request["columns"] == 10
    assert request["shape"]["depth"] == 2
    protocol = request["protocol"]
    assert (protocol["step"], protocol["images"], protocol["labels"]) == (40, 320, list(range(10)))
    assert (protocol["solver"], protocol["steps"], protocol["guidance"]) == ("euler", 25, 1.0)


def test_an_older_milestone_by_its_step(ask):
    assert ask(at=20)["protocol"]["images"] == 160


def test_the_name_of_the_picture_tells_guidance(ask):
    assert ask(guidance=4.0)["output"] == "small-phase1-320-cfg4.png"
    assert ask(guidance=1.0)["output"] == ask()["output"]


def test_a_picture_that_stood_there_is_told_of(ask, place, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sample, "make", lambda request: Path(request["output"]).touch())
    wishes = sample.Wishes("phase1", "all", NOTHING, None, None, 0, None, str(place.root), as_json=False)
    sample.run(wishes)
    assert "older picture" not in capsys.readouterr().err
    sample.run(wishes)
    assert "takes the place of an older picture" in capsys.readouterr().err


def test_labels_are_names_before_they_are_numbers_and_are_taken_in_turn(ask):
    request = ask(labels="3, 3,cat,9", num=6)
    assert request["protocol"]["labels"] == [0, 0, 1, 9, 0, 0]
    assert request["protocol"]["classes"] == ["3", "3", "cat", "jay", "3", "3"]
    assert request["columns"] == 4


@pytest.mark.parametrize(("labels", "num", "columns"), [(3, 3, 3), (3, 12, 3), (3, 2, 2), (1000, 1000, 32), (17, 1, 1)])
def test_a_grid_has_a_column_for_each_label_while_they_are_few(labels, num, columns):
    assert sample.columns(labels, num=num) == columns


def test_it_says_how_the_picture_was_made(ask):
    first, second = sample.told(ask(labels="3,cat", guidance=4.0, interval=[0.0, 0.65], steps=10)["protocol"])
    assert first == (
        "phase1 at step 40 (320 images seen), ema weights, euler with 10 steps, cfg 4 on t in [0, 0.65], seed 0"
    )
    assert second == "2 images of 3, cat"


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"labels": "3,cta"}, '--labels cta\n  no class "cta"\n  did you mean "cat"? labels are 0..9'),
        ({"labels": "10"}, '--labels 10\n  no class "10"\n  labels are 0..9, or class names: 3, cat, dog'),
        ({"labels": "33"}, '--labels 33\n  no class "33"\n  labels are 0..9'),
        ({"labels": "-1"}, "--labels -1"),
        ({"labels": "3,,4"}, "no class"),
        ({"at": 30}, "--at 30\n  phase1 has no finished milestone at that step\n  finished: 20, 40"),
        ({"num": 0}, "--num 0\n  must be at least 1"),
        ({"seed": -1}, "--seed -1\n  must be at least 0"),
        ({"steps": 0}, "--steps 0\n  must be above 0"),
        ({"solver": "eular"}, '--solver eular\n  not one of the valid words\n  did you mean "euler"?'),
        ({"solver": "sde", "steps": 1}, "--steps 1\n  the sde needs at least 2"),
        ({"guidance": -1.0}, "--cfg -1.0\n  must be at least 0"),
        ({"guidance": 3.0, "interval": [0.7, 0.2]}, "--interval 0.7,0.2\n  a window is [low, high]"),
        ({"interval": [0.0, 0.5]}, "--interval 0.0,0.5\n  an interval says where guidance acts, and there is none"),
        ({"output": Path("a.jpg")}, "-o a.jpg\n  the picture is a PNG\n  for example a.png"),
        ({"output": Path("no/a.png")}, "-o no/a.png\n  no such folder"),
        ({"run": "vae"}, "vae is of kind autoencoder: only the milestones of a train stage"),
        ({"run": "vanilla"}, '"vanilla" names 2 stages\n  give one of: vanilla:seed=0, vanilla:seed=1'),
        ({"run": "phase2:guidance=5,seed=0"}, "has no finished milestone yet\n  the first one is at step 20"),
        ({"run": "phse1"}, 'did you mean "phase1"?'),
        (
            {"run": "small"},
            "give one of: vanilla:seed=0, vanilla:seed=1, phase1, phase2:guidance=5,seed=0, phase2:guidance=30,seed=0",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_name(ask, wish, words):
    with pytest.raises(ConfigError) as caught:
        ask(**wish)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["a,b", "0.1;0.5", ""])
def test_an_interval_is_two_numbers(text):
    with pytest.raises(ConfigError, match=r"for example --interval 0,0\.65"):
        sample.interval_of(text)
