import pytest
from hypothesis import given
from hypothesis import strategies as st

from stx.config import yaml
from stx.errors import ConfigError

SCALARS = st.none() | st.booleans() | st.integers(-(2**100), 2**100) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    SCALARS | TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)
)


def value(text):
    return yaml.parse(f"x: {text}", file="f.yaml").value["x"]


def refused(text):
    with pytest.raises(ConfigError) as caught:
        yaml.parse(text, file="f.yaml")
    return str(caught.value)


@given(st.dictionaries(TEXT.filter(lambda key: key != "<<"), VALUES.filter(lambda v: "<<" not in repr(v)), max_size=4))
def test_load_of_dump_is_the_same_value(mapping):
    parsed = yaml.parse(yaml.dump(mapping), file="f.yaml").value
    assert parsed == mapping
    assert repr(parsed) == repr(mapping)  # 1 is not 1.0 and not True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4", 1e-4),
        ("3.0e-3", 3e-3),
        (".5", 0.5),
        ("5.", 5.0),
        ("-7", -7),
        ("012", 12),
        ("0o14", 12),
        ("0x1f", 31),
        ("12:30:00", "12:30:00"),
        ("1_000", "1_000"),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("'1e-4'", "1e-4"),
        ('"true"', "true"),
        ("2020-01-01", "2020-01-01"),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text, expected):
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("text", [".nan", ".inf", "-.inf", ".Inf", "1e999", "-1e400"])
def test_a_number_that_is_not_finite_is_refused_at_its_place(text):
    assert f"f.yaml:3: stages.a.guidance = {text}\n" in refused(f"stages:\n  a:\n    guidance: {text}\n")


def test_a_duplicate_key_names_both_lines():
    message = refused("stages:\n  a:\n    steps: 1\n    lr: 2\n    steps: 3\n")
    assert message.startswith("f.yaml:5: stages.a.steps\n")
    assert "line 3" in message


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: &x 1\nb: *x", "anchors"),
        ("b: *x", "anchors"),
        ("a: !!python/object/apply:os.system [ls]", "tags"),
        ("a: !custom 1", "tags"),
        ("a: {<<: {b: 1}}", "merge"),
        ("? [a, b]\n: 1", "key"),
        ("a: 1\n---\nb: 2", "second document"),
        ("a: [1, 2", "well-formed"),
        ("a: 1\n b: 2", "well-formed"),
        ("a:\tb: c", "well-formed"),
        ("a: \x01", "well-formed"),
        ("a: " + "[" * 100_000, "deep"),
        ("a: " + "9" * 10_000, "digits"),
    ],
)
def test_what_is_not_read_is_refused_with_file_and_reason(text, word):
    message = refused(text)
    assert message.startswith("f.yaml")
    assert word in message


def test_bombs_of_aliases_are_refused_before_they_grow():
    bomb = "a: &a [x, x]\n" + "\n".join(f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    assert "anchors" in refused(bomb)


def test_every_value_knows_its_line():
    document = yaml.parse("a:\n  b: [1,\n   2]\n\nc: 3\n", file="f.yaml")
    assert document.lines[("a", "b", 1)] == 3
    assert document.lines[("c",)] == 5


def test_an_empty_file_is_null():
    assert yaml.parse("# nothing\n", file="f.yaml").value is None
