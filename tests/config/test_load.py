import pytest

from stx.config.load import load_experiment
from stx.errors import ConfigError

BASE = """\
name: small
defaults:
  command: {version: a, seed: 3}
stages:
  first: {kind: command, argv: [echo, one]}
  second:
    kind: command
    argv: [echo, two]
    inputs: {one: first}
    seed: 5
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="e.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def refused(write):
    def refused(text, **options):
        with pytest.raises(ConfigError) as caught:
            load_experiment(write(text), **options)
        return str(caught.value)

    return refused


def test_defaults_are_merged_under_every_stage_of_their_kind(write):
    drafts = load_experiment(write(BASE)).drafts
    assert drafts["first"].options == {"version": "a", "seed": 3, "argv": ["echo", "one"]}
    assert drafts["second"].options["seed"] == 5


def test_a_file_alone_is_its_own_text(write):
    assert load_experiment(write(BASE)).text == BASE


def test_extends_merges_mappings_and_replaces_lists_and_sweeps(write):
    write(BASE.replace("seed: 5", "sweep: {seed: [1, 2]}"), "base.yaml")
    child = "extends: base.yaml\nname: child\nstages:\n  second: {argv: [ls], sweep: {version: [x]}}\n"
    experiment = load_experiment(write(child))
    second = experiment.drafts["second"]
    assert experiment.name == "child"
    assert second.options["argv"] == ["ls"]
    assert second.options["inputs"] == {"one": "first"}
    assert [dict(point.values) for point in second.points] == [{"version": "x"}]


def test_the_text_of_an_extended_and_set_file_stands_alone(write, tmp_path):
    write(BASE, "base.yaml")
    experiment = load_experiment(write("extends: base.yaml\nname: child\n"), sets=["stages.first.seed=9"])
    again = load_experiment(write(experiment.text, "again.yaml"))
    assert again.drafts["first"].options["seed"] == 9
    assert {n: (d.options, d.points) for n, d in again.drafts.items()} == {
        n: (d.options, d.points) for n, d in experiment.drafts.items()
    }


def test_extends_is_one_level(write):
    write("extends: other.yaml\n" + BASE, "base.yaml")
    with pytest.raises(ConfigError, match="one level"):
        load_experiment(write("extends: base.yaml\nname: child\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1e-4", 1e-4), ("null", None), ("[1, 2]", [1, 2]), ("on", "on"), ("{a: 1}", {"a": 1}), ("x=y", "x=y")],
)
def test_a_set_value_is_read_as_yaml(write, text, expected):
    experiment = load_experiment(write(BASE), sets=[f"stages.second.deep.er={text}"])
    assert experiment.drafts["second"].options["deep"] == {"er": expected}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("stages.secnd.seed=1", 'did you mean "second"'),
        ("stages.second=1", "one option of one stage"),
        ("stages=1", "one option of one stage"),
        ("stages.second.sweep.seed=[1]", "sweep={seed: [1]}"),
        ("stage.second.seed=1", 'did you mean "stages"'),
        ("extends=a", "known: name"),
        ("stages.second.seed", "PATH=VALUE"),
        ("stages..seed=1", "PATH=VALUE"),
        ("stages.second.seed=[1", "not well-formed"),
        ("stages.second.seed=.nan", "not a finite number"),
    ],
)
def test_a_set_that_cannot_work_names_itself(refused, assignment, words):
    message = refused(BASE, sets=[assignment])
    assert message.startswith(f"--set {assignment}")
    assert words in message


def test_a_set_that_every_sweep_point_overrides_is_refused(write):
    path = write(BASE.replace("seed: 5", "sweep: {seed: [1, 2]}"))
    with pytest.raises(ConfigError, match="has no effect: the sweep of second gives seed at every point"):
        load_experiment(path, sets=["stages.second.seed=7"])
    assert load_experiment(path, sets=["stages.second.sweep={seed: [7]}"]).drafts["second"].points[0].values == {
        "seed": 7
    }


def points(write, sweep):
    drafts = load_experiment(write(BASE.replace("seed: 5", f"sweep: {sweep}"))).drafts
    return [dict(point.values) for point in drafts["second"].points]


def test_a_mapping_of_lists_is_a_grid(write):
    assert points(write, "{seed: [1, 2], a.b: [x, y]}") == [
        {"seed": 1, "a.b": "x"},
        {"seed": 1, "a.b": "y"},
        {"seed": 2, "a.b": "x"},
        {"seed": 2, "a.b": "y"},
    ]


def test_zip_pairs_equally_long_lists(write):
    assert points(write, "{zip: {seed: [1, 2], a: [x, y]}}") == [{"seed": 1, "a": "x"}, {"seed": 2, "a": "y"}]


def test_a_list_is_the_points_themselves(write):
    assert points(write, "[{seed: 1}, {a: 2}]") == [{"seed": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ("[]", "an empty sweep"),
        ("{}", "an empty sweep"),
        ("{seed: []}", "at least one value"),
        ("{seed: 3}", "must be a list"),
        ("3", "a sweep is a list of points"),
        ("[3]", "a point is a mapping"),
        ("[{}]", "a point is a mapping"),
        ("{zip: {a: [1], b: [1, 2]}}", "equally long"),
        ("{zip: {a: [1]}, b: [1]}", "stands alone"),
        ("{zip: []}", "a mapping of lists"),
        ("{kind: [a]}", "no option path"),
        ("{'a..b': [1]}", "no option path"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_at_its_line(refused, sweep, words):
    message = refused(BASE.replace("seed: 5", f"sweep: {sweep}"))
    assert ":10: stages.second.sweep" in message
    assert words in message


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name: small", "name: Small", "is not a name"),
        ("name: small", "name: ../up", "is not a name"),
        ("name: small", "name: 3", "is not a name"),
        ("name: small\n", "", '"name" is required'),
        ("  first:", "  first/x:", "is not a name"),
        ("  first:", "  a:b:", "is not a name"),
        ("kind: command, argv: [echo, one]", "argv: [echo, one]", 'has a "kind"'),
        ("{kind: command, argv: [echo, one]}", "3", "must be a mapping"),
        ("defaults:", "default:", 'did you mean "defaults"'),
        ("{version: a, seed: 3}", "{kind: a}", "kind belongs to one stage"),
        ("{version: a, seed: 3}", "3", "must be a mapping"),
    ],
)
def test_a_file_of_another_shape_is_refused(refused, old, new, words):
    assert words in refused(BASE.replace(old, new, 1))


@pytest.mark.parametrize("text", ["", "[1]", "3", "name: a\n", "name: a\nstages: {}\n", "name: a\nstages: 3\n"])
def test_a_file_without_stages_is_refused(refused, text):
    assert refused(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for name, data in (("missing.yaml", None), ("binary.yaml", b"\xff\xfe\x00")):
        if data:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(ConfigError, match=name):
            load_experiment(tmp_path / name)
    with pytest.raises(ConfigError, match="is a directory"):
        load_experiment(tmp_path)
