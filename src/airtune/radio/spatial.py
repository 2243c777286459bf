"""A random map: normal numbers over the plane, alike where places are near to each other."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from airtune.radio.units import Floats, Ints, Points

_NODES = 1024  # along each side of the map
_NODES_PER_DECORRELATION = 16


class NormalMap:
    """Standard normal numbers at places, correlated by ``exp(-distance / decorrelation_m)``.

    Drawn exactly on a grid by circulant embedding (the FFT of white noise times the root of the
    covariance's spectrum, RECALLED: Dietrich and Newsam 1997) and interpolated between its nodes,
    variance restored. Interpolating smooths; an independent share in each node's variance takes
    that back, so that correlations are within 0.011 of the formula at any distance (DERIVED).
    Along a straight way at constant speed these are the numbers of a first-order autoregression
    (Gudmundson 1991). The map has 8 MiB whatever the clients, and repeats itself after 64
    decorrelation distances.
    """

    def __init__(self, decorrelation_m: float, rng: np.random.Generator) -> None:
        self._spacing_m = decorrelation_m / _NODES_PER_DECORRELATION
        share, beside, diagonal = _node_covariance()
        self._beside, self._diagonal = share * beside, share * diagonal
        white = np.fft.rfft2(rng.standard_normal((_NODES, _NODES)))
        self._nodes = np.fft.irfft2(white * _amplitude()).ravel()

    def at(self, position: Points) -> Floats:
        """Return the numbers of places, ``[count]`` as they are."""
        x, column, right = _between(position.real / self._spacing_m)
        y, row, below = _between(position.imag / self._spacing_m)
        row, below, nodes = row * _NODES, below * _NODES, self._nodes
        upper = (1.0 - x) * nodes[row + column] + x * nodes[row + right]
        lower = (1.0 - x) * nodes[below + column] + x * nodes[below + right]
        # Sums of squares and of products of the two weights along each axis.
        cross_x, cross_y = 2.0 * x * (1.0 - x), 2.0 * y * (1.0 - y)
        own_x, own_y = 1.0 - cross_x, 1.0 - cross_y
        variance = own_y * (own_x + self._beside * cross_x)
        variance += cross_y * (self._beside * own_x + self._diagonal * cross_x)
        return np.asarray(((1.0 - y) * upper + y * lower) / np.sqrt(variance))


def _between(scaled: Floats) -> tuple[Floats, Ints, Ints]:
    """Return how far places are from one node of the map to the next, and those two nodes."""
    before = np.floor(scaled)
    node = before.astype(np.int64) & (_NODES - 1)
    return scaled - before, node, (node + 1) & (_NODES - 1)


def _node_covariance() -> tuple[float, float, float]:
    """Return the correlated share of a node's variance, and what neighbours have of it.

    Neighbours beside each other and across; with this share it equals the mean variance between
    nodes, so that numbers whose variance is restored correlate as the formula says.
    """
    beside, diagonal = np.exp(-np.array([1.0, np.sqrt(2.0)]) / _NODES_PER_DECORRELATION)
    return 4.0 / (9.0 - 4.0 * beside - diagonal), beside, diagonal


@lru_cache(maxsize=1)
def _amplitude() -> Floats:
    """Return the root of the covariance's spectrum: one for all maps, in units of their nodes."""
    steps = np.minimum(np.arange(_NODES), _NODES - np.arange(_NODES)) / _NODES_PER_DECORRELATION
    covariance = _node_covariance()[0] * np.exp(-np.hypot(steps[:, None], steps))
    covariance[0, 0] = 1.0
    return np.sqrt(np.maximum(np.fft.rfft2(covariance).real, 0.0))
