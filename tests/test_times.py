"""How t is drawn and where solvers ask."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stx.times import DISTRIBUTIONS, INTERPOLANTS, SOLVERS, UNIFORM, Distribution, call_times, grid, inside

every = pytest.mark.parametrize("name", DISTRIBUTIONS)
on_each = pytest.mark.parametrize("interpolant", INTERPOLANTS)


@every
@on_each
@given(share=st.floats(1e-6, 1 - 1e-6))
def test_quantile_is_the_inverse_of_below(name, interpolant, share):
    law = Distribution(name, interpolant)
    t = law.quantile(share)
    assert 0 < t < 1
    assert law.below(t) == pytest.approx(share, abs=1e-9)


@every
@on_each
def test_all_of_t_is_inside_the_whole_window(name, interpolant):
    law = Distribution(name, interpolant)
    assert law.share((0.0, 1.0)) == 1.0
    assert law.share((0.0, 0.3)) + law.share((0.3, 1.0)) == pytest.approx(1.0)


def test_lognormal_is_the_ratio_of_noise_to_latents_on_either_interpolant():
    # sigma = 1 is the median; sigma = e has a normal of 1
    assert Distribution("lognormal", "linear").quantile(0.5) == pytest.approx(0.5)
    assert Distribution("lognormal", "cosine").quantile(0.5) == pytest.approx(0.5)
    one_deviation = 0.8413447460685429
    assert Distribution("lognormal", "linear").quantile(one_deviation) == pytest.approx(math.e / (1 + math.e))
    assert Distribution("lognormal", "cosine").quantile(one_deviation) == pytest.approx(2 / math.pi * math.atan(math.e))


def test_the_share_of_a_window_of_uniform_t_is_its_length():
    assert UNIFORM.share((0.4, 0.7)) == 0.7 - 0.4


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [2, 7, 250])
def test_a_grid_goes_down_from_1_to_0_and_no_call_is_at_0(solver, steps):
    places, calls = grid(solver, steps=steps), call_times(solver, steps=steps)
    assert (places[0], places[-1]) == (1.0, 0.0)
    assert len(places) == steps + 1
    assert all(later < earlier for earlier, later in itertools.pairwise(places))
    assert set(calls) == set(places[:-1])
    assert len(calls) == (2 * steps - 1 if solver == "heun" else steps)


def test_the_sde_goes_in_equal_steps_to_its_last_one():
    places = grid("sde", steps=250)
    assert places[-2] == 0.04
    assert places[100] == pytest.approx(1 - 100 * 0.96 / 249)
    assert grid("sde", steps=3, last_step=0.1) == pytest.approx([1.0, 0.55, 0.1, 0.0])


@pytest.mark.parametrize("steps", [10, 25, 50, 100])
@pytest.mark.parametrize("edge", [0.1, 0.2, 0.3, 0.7])
def test_a_step_on_the_edge_of_an_interval_is_inside_it_whatever_rounding_says(steps, edge):
    at = grid("euler", steps=steps)
    on_it = [t for t in at if abs(t - edge) < 1e-6]
    assert all(inside(t, (edge, 0.9)) and inside(t, (0.0, edge)) for t in on_it)
    assert not inside(edge - 1e-6, (edge, 0.9))
