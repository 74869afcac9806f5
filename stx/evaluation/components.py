"""Hidden states as pictures: the first three principal components of their tokens as red, green and blue.

    tokens (R, D) -> mean (D,), directions (D, 3): the eigenvectors of the covariance with the largest eigenvalues
    colour c of a token = its coordinate along direction c, from the 1st to the 99th percentile of all rows on 0..255

An eigenvector has no sign: here its entry of largest magnitude is positive, so equal tokens give equal pictures. All
arithmetic is float64.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

COLOURS = 3
PERCENTILES = (1.0, 99.0)


class Basis(NamedTuple):
    """mean (D,) and orthonormal directions (D, 3), the first with the largest variance."""

    mean: NDArray[np.float64]
    directions: NDArray[np.float64]


def principal(tokens: NDArray[np.floating]) -> Basis:
    """The basis of tokens (R, D), D >= 3."""
    rows = tokens.astype(np.float64)
    mean = rows.mean(axis=0)
    centred, width = rows - mean, rows.shape[1]
    _, ascending = eigh(centred.T @ centred, subset_by_index=(width - COLOURS, width - 1))
    directions = ascending[:, ::-1]
    largest = np.abs(directions).argmax(axis=0)
    return Basis(mean, directions * np.sign(directions[largest, np.arange(COLOURS)]))


def coloured(tokens: NDArray[np.floating], basis: Basis) -> NDArray[np.uint8]:
    """Colours (..., 3) of tokens (..., D), each component on a range of its own."""
    coordinates = (tokens.astype(np.float64) - basis.mean) @ basis.directions
    low, high = np.percentile(coordinates.reshape(-1, COLOURS), PERCENTILES, axis=0)
    shares = (coordinates - low) / np.maximum(high - low, np.finfo(np.float64).tiny)
    return np.rint(255.0 * np.clip(shares, 0.0, 1.0)).astype(np.uint8)


def picture(hidden: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Hidden states (n, tokens, D) of n images as (n, g, g, 3), in one basis for all of them."""
    return squares(coloured(hidden, principal(hidden.reshape(-1, hidden.shape[-1]))))


def side_by_side(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Two kinds of hidden states (n, tokens, D) of the same images as (n, 2, g, g, 3), in one basis.

    Each is centred and divided by its root mean square first: a guided feature is many times larger than the plain one,
    and would alone decide the basis.
    """
    both = np.stack([_whitened(first), _whitened(second)], axis=1)
    basis = principal(both.reshape(-1, both.shape[-1]))
    return np.stack([squares(coloured(both[:, side], basis)) for side in range(2)], axis=1)


def squares(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, tokens, 3) as (n, g, g, 3): tokens come row by row."""
    side = round(colours.shape[1] ** 0.5)
    assert side * side == colours.shape[1], f"{colours.shape[1]} tokens are no square"
    return colours.reshape(len(colours), side, side, COLOURS)


def _whitened(hidden: NDArray[np.floating]) -> NDArray[np.float64]:
    centred = hidden.astype(np.float64) - hidden.mean(axis=(0, 1), dtype=np.float64)
    return centred / max(float(np.sqrt(np.mean(centred**2))), np.finfo(np.float64).tiny)
