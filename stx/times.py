"""What is known of t without torch: how it is drawn in training, and where a solver asks the network. t=1 is noise.

t_distribution  uniform     u
                lognormal   sigma = exp(z), z ~ N(0, 1); t is where the interpolant has that ratio of noise to latents:
                            sigma / (1 + sigma) on the linear one, (2 / pi) atan(sigma) on the cosine one (REPA, the
                            cosine case from memory of its code)

solver          calls of the network for N steps
euler           N        linspace(1, 0, N + 1) without the end
heun            2N - 1   the same grid, and the end of each interval but the last: t = 0 is never asked, no network
                         was trained there
sde             N        linspace(1, last_step, N)
"""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statistics import NormalDist

INTERPOLANTS = ("linear", "cosine")
DISTRIBUTIONS = ("uniform", "lognormal")
SOLVERS = ("euler", "heun", "sde")
LAST_STEP = 0.04
EDGE = 1e-9  # rounding of a grid: 20 of 25 steps are at 0.2, and at 1 - 20/25 = 0.19999999999999996


@functools.cache
def _normal() -> "NormalDist":
    """The standard normal distribution. Its module takes as long to import as ten of ours, and few runs need it."""
    from statistics import NormalDist

    return NormalDist()


@dataclass(frozen=True)
class Distribution:
    """How t is drawn: a word of DISTRIBUTIONS, and the interpolant of the run that draws it."""

    name: str
    interpolant: str

    def quantile(self, share: float) -> float:
        """The t below which `share` in (0, 1) of all t are: the inverse of `below`."""
        if self.name == "uniform":
            return share
        sigma = math.exp(_normal().inv_cdf(share))
        return {"linear": sigma / (1 + sigma), "cosine": 2 / math.pi * math.atan(sigma)}[self.interpolant]

    def below(self, t: float) -> float:
        """The share of all t that are below t, in [0, 1]."""
        if self.name == "uniform" or not 0 < t < 1:
            return t
        sigma = {"linear": t / (1 - t), "cosine": math.tan(math.pi / 2 * t)}[self.interpolant]
        return _normal().cdf(math.log(sigma))

    def share(self, window: tuple[float, float]) -> float:
        """The share of all t that are inside a window."""
        low, high = window
        return self.below(high) - self.below(low)


UNIFORM = Distribution("uniform", "linear")


def inside(t: float, interval: tuple[float, float]) -> bool:
    """Whether t lies in an interval, its edges included."""
    low, high = interval
    return low - EDGE <= t <= high + EDGE


def grid(solver: str, *, steps: int, last_step: float = LAST_STEP) -> list[float]:
    """The steps + 1 places that a solver goes through, from 1 down to 0."""
    if solver != "sde":
        return [1 - step / steps for step in range(steps + 1)]
    width = (1 - last_step) / max(1, steps - 1)
    return [*(1 - step * width for step in range(steps - 1)), last_step, 0.0]


def call_times(solver: str, *, steps: int, last_step: float = LAST_STEP) -> list[float]:
    """t of each call of the network, in order."""
    places = grid(solver, steps=steps, last_step=last_step)
    if solver != "heun":
        return places[:-1]
    both = list(itertools.chain.from_iterable(itertools.pairwise(places)))
    return both[:-1]
