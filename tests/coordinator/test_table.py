"""The persistent sequence."""

from hypothesis import given
from hypothesis import strategies as st

from stx.coordinator.table import CHUNK, Table


@given(st.lists(st.integers(), max_size=3 * CHUNK), st.data())
def test_a_table_is_a_list_that_keeps_its_past(items, data):
    table = Table.of(items)
    places = st.integers(0, len(items) - 1) if items else st.nothing()
    changes = data.draw(st.dictionaries(places, st.integers(), max_size=5)) if items else {}
    after = table.updated(changes)
    assert list(table) == items
    assert list(after) == [changes.get(place, item) for place, item in enumerate(items)]
    assert [after[place] for place in range(len(after))] == list(after)
    untouched = set(range(len(table.chunks))) - {place // CHUNK for place in changes}
    assert all(after.chunks[place] is table.chunks[place] for place in untouched)
