"""Hidden states as pictures."""

import numpy as np
import pytest

from stx.evaluation import components


@pytest.fixture
def tokens():
    """Three directions with standard deviations 9, 4 and 2 in a space of 16, and small noise in all."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(16, 16)))[0][:, :3]
    coordinates = rng.normal(size=(6 * 16, 3)) * [9.0, 4.0, 2.0]
    rows = coordinates @ directions.T + 0.01 * rng.normal(size=(6 * 16, 16)) + rng.normal(size=16)
    return rows.reshape(6, 16, 16), coordinates.reshape(6, 16, 3), directions


def test_the_directions_of_largest_variance_are_found_in_their_order(tokens):
    hidden, _, directions = tokens
    basis = components.principal(hidden.reshape(-1, 16))
    overlap = np.abs(basis.directions.T @ directions)
    assert np.diag(overlap) == pytest.approx(1.0, abs=0.05)
    assert basis.directions.T @ basis.directions == pytest.approx(np.eye(3), abs=1e-12)


def test_a_colour_is_the_place_of_a_token_among_all_of_them(tokens):
    hidden, coordinates, _ = tokens
    picture = components.picture(hidden)
    assert (picture.shape, picture.dtype.name) == ((6, 4, 4, 3), "uint8")
    ours, theirs = picture.reshape(-1, 3).astype(float), coordinates.reshape(-1, 3)
    for colour in range(3):
        assert abs(np.corrcoef(ours[:, colour], theirs[:, colour])[0, 1]) > 0.97
        assert (ours[:, colour].min(), ours[:, colour].max()) == (0, 255)


def test_the_sign_of_a_component_does_not_depend_on_that_of_an_eigenvector(tokens, monkeypatch):
    hidden, eigh = tokens[0], components.eigh
    before = components.picture(hidden)
    monkeypatch.setattr(components, "eigh", lambda *a, **k: (None, -eigh(*a, **k)[1]))
    assert np.array_equal(components.picture(hidden), before)


def test_states_that_do_not_vary_are_one_colour():
    assert len(np.unique(components.picture(np.ones((2, 4, 8), np.float32)))) == 1


def test_side_by_side_a_larger_scale_of_one_side_changes_nothing(tokens):
    hidden = tokens[0]
    other = hidden[:, ::-1]
    plain, scaled = components.side_by_side(hidden, other), components.side_by_side(hidden, 40.0 * other + 7.0)
    assert plain.shape == (6, 2, 4, 4, 3)
    assert np.abs(plain.astype(int) - scaled.astype(int)).max() <= 1


def test_side_by_side_equal_states_are_equal_pictures(tokens):
    both = components.side_by_side(tokens[0], tokens[0])
    assert np.array_equal(both[:, 0], both[:, 1])
