"""A random map: normal numbers over the plane, alike where places are near to each other."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from airtune.radio.units import Floats, Ints, Points

_NODES = 1024  # along each side of the map, or a few times as many
_MOST_NODES = 3072
_NODES_PER_DECORRELATION = 16
_APART = 4.0  # decorrelation distances from one end of the places to the other, the way around


class NormalMap:
    """Standard normal numbers at places, correlated by ``exp(-distance / decorrelation_m)``.

    Drawn exactly on a grid by circulant embedding (the FFT of white noise times the root of the
    covariance's spectrum, RECALLED: Dietrich and Newsam 1997) and interpolated between its nodes,
    variance restored. Interpolating smooths; an independent share in each node's variance takes
    that back, so that correlations are within 0.011 of the formula at any distance on average
    over positions (DERIVED). Where the grid lies is random: of two given places the same holds on
    average over maps, while on one map those on nodes are up to 0.07 less alike than others.
    Along a straight way at constant speed these are the numbers of a first-order autoregression
    (Gudmundson 1991).

    The map repeats itself. It is as large as places within ``reach_m`` of the base station ask
    for, 64 to 192 decorrelation distances, so that it has 8 to 72 MiB whatever the clients;
    places that lie farther apart than that have the numbers of nearer ones.
    """

    def __init__(
        self, decorrelation_m: float, rng: np.random.Generator, reach_m: float = 0.0
    ) -> None:
        self._spacing_m = decorrelation_m / _NODES_PER_DECORRELATION
        wide = 2.0 * reach_m / self._spacing_m + _APART * _NODES_PER_DECORRELATION
        self._side = min(_NODES * max(math.ceil(min(wide, _MOST_NODES) / _NODES), 1), _MOST_NODES)
        share, beside, diagonal = _node_covariance()
        self._beside, self._diagonal = share * beside, share * diagonal
        white = np.fft.rfft2(rng.standard_normal((self._side, self._side)))
        self._nodes = np.fft.irfft2(white * _amplitude(self._side)).ravel()
        self._corner = complex(*rng.random(2))  # of the grid, in units of its cells

    def at(self, position: Points) -> Floats:
        """Return the numbers of places, ``[count]`` as they are."""
        side, nodes = self._side, self._nodes
        scaled = position / self._spacing_m + self._corner
        x, column, right = _between(scaled.real, side)
        y, row, below = _between(scaled.imag, side)
        row, below = row * side, below * side
        upper = (1.0 - x) * nodes[row + column] + x * nodes[row + right]
        lower = (1.0 - x) * nodes[below + column] + x * nodes[below + right]
        # Sums of squares and of products of the two weights along each axis.
        cross_x, cross_y = 2.0 * x * (1.0 - x), 2.0 * y * (1.0 - y)
        own_x, own_y = 1.0 - cross_x, 1.0 - cross_y
        variance = own_y * (own_x + self._beside * cross_x)
        variance += cross_y * (self._beside * own_x + self._diagonal * cross_x)
        return np.asarray(((1.0 - y) * upper + y * lower) / np.sqrt(variance))


def _between(scaled: Floats, side: int) -> tuple[Floats, Ints, Ints]:
    """Return how far places are from one node of the map to the next, and those two nodes."""
    before = np.floor(scaled)
    node = before.astype(np.int64) % side
    return scaled - before, node, (node + 1) % side


def _node_covariance() -> tuple[float, float, float]:
    """Return the correlated share of a node's variance, and what neighbours have of it.

    Neighbours beside each other and across; with this share it equals the mean variance between
    nodes, so that numbers whose variance is restored correlate as the formula says.
    """
    beside, diagonal = np.exp(-np.array([1.0, np.sqrt(2.0)]) / _NODES_PER_DECORRELATION)
    return 4.0 / (9.0 - 4.0 * beside - diagonal), beside, diagonal


@lru_cache(maxsize=2)
def _amplitude(side: int) -> Floats:
    """Return the root of the covariance's spectrum: one for all maps, in units of their nodes."""
    steps = np.minimum(np.arange(side), side - np.arange(side)) / _NODES_PER_DECORRELATION
    covariance = _node_covariance()[0] * np.exp(-np.hypot(steps[:, None], steps))
    covariance[0, 0] = 1.0
    return np.sqrt(np.maximum(np.fft.rfft2(covariance).real, 0.0))
