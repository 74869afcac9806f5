from typing import Annotated

import pytest

from stx.config import schema
from stx.config.schema import External, Many, Milestones, Options, Positive, StageOptions, Window


class Inner(Options):
    solver: Annotated[str, schema.choice("euler")] = schema.science("euler")
    steps: Positive = schema.science(25)
    verbose: bool = schema.where(False)


class Outer(StageOptions):
    source: str = schema.input_("images")
    other: str | None = schema.input_("latents", default=None)
    lr: float = schema.science(1e-4, gt=0)
    window: Window = schema.science((0.4, 0.7))
    flag: bool = schema.science(False, neutral=False)
    channels: Many[Positive] = schema.science((1, 2), min_length=1)
    milestones: Milestones = schema.goal(())
    every: Positive = schema.where(50)
    inner: Inner = schema.group(Inner)


def good(**options):
    found = schema.validate(Outer, {"source": "a", **options})
    assert isinstance(found, Outer), found
    return found


def bad(**options):
    found = schema.validate(Outer, {"source": "a", **options})
    assert isinstance(found, list), found
    return {".".join(map(str, problem.path)): f"{problem.what} {problem.hint or ''}" for problem in found}


def test_science_where_and_inputs_are_told_apart():
    options = good(other="b", every=7, milestones=[1, 2], inner={"verbose": True})
    assert schema.science_of(options) == {
        "seed": 0,
        "lr": 1e-4,
        "window": [0.4, 0.7],
        "channels": [1, 2],
        "inner": {"solver": "euler", "steps": 25},
    }
    assert schema.where_of(options) == {"every": 7, "inner": {"verbose": True}}
    assert schema.inputs_of(options) == {"source": ("a", ("images",)), "other": ("b", ("latents",))}


def test_a_field_at_its_neutral_value_stays_out_of_the_key():
    assert "flag" not in schema.science_of(good(flag=False))
    assert schema.science_of(good(flag=True))["flag"] is True


def test_a_group_whose_fields_are_all_neutral_stays_out_of_the_key():
    class Added(Options):
        amount: float = schema.science(0.0, neutral=0.0)

    class Grown(StageOptions):
        added: Added = schema.group(Added)

    assert schema.science_of(Grown()) == {"seed": 0}
    assert schema.science_of(Grown(added=Added(amount=1.0))) == {"seed": 0, "added": {"amount": 1.0}}


def test_a_field_without_a_mark_fails():
    class Forgotten(StageOptions):
        width: int = 3

    with pytest.raises(AssertionError, match="width has no mark"):
        schema.marks(Forgotten)


def test_whole_numbers_are_accepted_where_numbers_are_declared_and_hash_alike():
    assert schema.science_of(good(lr=1)) == schema.science_of(good(lr=1.0))


@pytest.mark.parametrize(
    ("options", "path", "words"),
    [
        ({"lr": "30"}, "lr", "must be a number"),
        ({"lr": True}, "lr", "must be a number"),
        ({"lr": 0}, "lr", "must be above 0"),
        ({"lr": float("nan")}, "lr", "must be a finite number"),
        ({"seed": True}, "seed", "must be a whole number"),
        ({"seed": 1.5}, "seed", "must be a whole number"),
        ({"seed": -1}, "seed", "must be at least 0"),
        ({"seed": 2**32}, "seed", "must be below 4.29497e+09"),
        ({"flag": 1}, "flag", "must be true or false"),
        ({"flag": "yes"}, "flag", "must be true or false"),
        ({"source": 3}, "source", "must be text"),
        ({"window": [0.7, 0.4]}, "window", "low < high"),
        ({"window": [0.4, 1.5]}, "window", "low < high"),
        ({"window": [-0.1, 0.5]}, "window", "low < high"),
        ({"window": [0.5, 0.5]}, "window", "low < high"),
        ({"window": [0.5]}, "window", "for example [0.4, 0.7]"),
        ({"window": [0.1, 0.2, 0.3]}, "window", "for example [0.4, 0.7]"),
        ({"window": 0.5}, "window", "a window is [low, high]"),
        ({"window": ["a", 1]}, "window", "a window is [low, high]"),
        ({"window": [False, True]}, "window", "a window is [low, high]"),
        ({"channels": 3}, "channels", "must be a list for example [3]"),
        ({"channels": []}, "channels", "at least 1"),
        ({"channels": [1, 0]}, "channels.1", "must be above 0"),
        ({"milestones": [3, 2]}, "milestones", "ascending"),
        ({"milestones": [2, 2]}, "milestones", "sorted: [2]"),
        ({"inner": 3}, "inner", "must be a mapping"),
        ({"inner": {"solver": "eulr"}}, "inner.solver", 'did you mean "euler"'),
        ({"inner": {"stps": 3}}, "inner.stps", 'did you mean "steps"? known: solver, steps, verbose'),
        ({"lrr": 3}, "lrr", 'did you mean "lr"?'),
        ({"source": None}, "source", "must be text"),
        ({"source": ["a"]}, "source", "must be text, not a list give one, without brackets"),
        ({"seed": 1e3}, "seed", "must be a whole number write 1000"),
        ({"inner": {"cfg": 3}}, "inner.cfg", "known: solver, steps, verbose"),
    ],
)
def test_errors_are_in_our_words_and_at_their_place(options, path, words):
    found = bad(**options)
    assert words in found[path]
    assert "pydantic" not in str(found) and "Input should" not in str(found)


def test_independent_errors_are_reported_together():
    assert set(bad(lr=-1, flag=3, inner={"steps": 0})) == {"lr", "flag", "inner.steps"}
    assert set(bad(lr=-1, flg=3, inner={"steps": 0, "stps": 1})) == {"lr", "flg", "inner.steps", "inner.stps"}


def test_a_misspelt_option_is_not_called_missing_too():
    found = schema.validate(Outer, {"sorce": "a"})
    assert isinstance(found, list)
    assert [problem.path for problem in found] == [("sorce",)]


def test_a_list_of_wrong_items_is_not_called_too_short():
    assert set(bad(channels=[0, "a"])) == {"channels.0", "channels.1"}


def test_a_required_option_is_named():
    found = schema.validate(Outer, {})
    assert isinstance(found, list)
    assert found[0].path == ("source",)
    assert "required" in found[0].what


def test_an_external_path_is_absolute_and_out_of_the_key(tmp_path):
    found = schema.validate(External, {"path": "a/b", "version": "v1"}, folder=tmp_path)
    assert isinstance(found, External)
    assert schema.where_of(found) == {"path": str(tmp_path / "a/b")}
    assert schema.science_of(found) == {"version": "v1"}


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    found = schema.validate(External, {"path": "~/pets", "version": "v1"}, folder=tmp_path)
    assert isinstance(found, External)
    assert found.path == "/home/me/pets"
    literal = schema.validate(External, {"path": "./~pets", "version": "v1"}, folder=tmp_path)
    assert isinstance(literal, External)
    assert literal.path == str(tmp_path / "~pets")
