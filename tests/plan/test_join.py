import itertools
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from stx.plan.join import natural_join


@dataclass(frozen=True)
class Item:
    name: str
    coordinates: dict[str, int]


COORDINATES = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2))
RELATIONS = st.lists(st.lists(COORDINATES, max_size=6), max_size=3)


@given(RELATIONS)
def test_the_join_is_the_product_filtered_by_agreement(relations):
    items = {
        f"r{number}": [Item(f"{number}.{place}", coordinates) for place, coordinates in enumerate(relation)]
        for number, relation in enumerate(relations)
    }
    found = [{name: item.name for name, item in row.items.items()} for row in natural_join(items)]
    expected = []
    for picked in itertools.product(*items.values()):
        values: dict[str, set[int]] = {}
        for item in picked:
            for key, value in item.coordinates.items():
                values.setdefault(key, set()).add(value)
        if all(len(several) == 1 for several in values.values()):
            expected.append({name: item.name for name, item in zip(items, picked, strict=True)})
    assert found == expected


@given(RELATIONS)
def test_a_row_has_the_coordinates_of_all_its_items(relations):
    items = {f"r{n}": [Item(str(p), c) for p, c in enumerate(relation)] for n, relation in enumerate(relations)}
    for row in natural_join(items):
        together = {key: value for item in row.items.values() for key, value in item.coordinates.items()}
        assert row.coordinates == together
