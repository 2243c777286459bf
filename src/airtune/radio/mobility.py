"""Clients that walk: the random waypoint model, from its stationary law on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from airtune.keyed import generator
from airtune.radio.units import Floats, Points

Draw = Callable[[int, np.random.Generator], Points]

# After so many times as it takes to cross the radius and to pause, a place tells nothing of the
# next one: any round can be drawn without replaying those before it.
_FORGOTTEN = 20.0


@dataclass(frozen=True)
class _Legs:
    """Each client's way: to where, in which direction (a unit), until the next one begins (s)."""

    goal: Points
    direction: Points
    left_s: Floats


class RandomWaypoint:
    """Clients go straight to a waypoint at constant speed, pause there, and go to the next.

    Waypoints come from ``draw(count, rng)``, all within ``reach_m`` of the base station;
    ``interval_s`` lies between rounds. Round 0 finds everybody in the stationary law, so no round
    is different from others: the leg under way has density ``duration(leg)`` among independent
    pairs of waypoints, pause included, and any moment of it is as likely (Palm's formula; RECALLED,
    Le Boudec and Vojnovic 2005). Rounds after it are steps, cached like fading's memory.
    """

    def __init__(
        self,
        draw: Draw,
        clients: int,
        reach_m: float,
        speed_m_per_s: float,
        pause_s: float,
        interval_s: float,
        seed: int,
    ) -> None:
        self._draw = draw
        self._clients = clients
        self._longest_s = 2.0 * reach_m / speed_m_per_s + pause_s
        self._speed = speed_m_per_s
        self._pause_s = pause_s
        self._interval_s = interval_s
        self._seed = seed
        self._forgets = interval_s > _FORGOTTEN * (reach_m / speed_m_per_s + pause_s)
        self._last: tuple[int, _Legs] | None = None

    def at(self, round: int) -> Points:
        """Return everybody's position: a function of (seed, round) and the arguments alone."""
        legs = self._legs(round)
        to_go_m = self._speed * np.maximum(legs.left_s - self._pause_s, 0.0)
        return legs.goal - to_go_m * legs.direction

    def _legs(self, round: int) -> _Legs:
        if self._forgets:
            return self._stationary(self._rng(round))
        if self._last is not None and self._last[0] <= round:
            reached, legs = self._last
        else:
            reached, legs = 0, self._stationary(self._rng(0))
        for later in range(reached + 1, round + 1):
            legs = self._step(legs, self._rng(later))
        self._last = (round, legs)
        return legs

    def _rng(self, round: int) -> np.random.Generator:
        return generator(self._seed, "waypoints", round)

    def _stationary(self, rng: np.random.Generator) -> _Legs:
        goal, direction = np.empty((2, self._clients), dtype=np.complex128)
        left_s, missing = np.empty(self._clients), np.arange(self._clients)
        while missing.size:
            start, goal[missing] = self._draw(missing.size, rng), self._draw(missing.size, rng)
            direction[missing], left_s[missing] = self._way(start, goal[missing])
            missing = missing[rng.random(missing.size) * self._longest_s >= left_s[missing]]
        return _Legs(goal, direction, rng.random(self._clients) * left_s)

    def _step(self, legs: _Legs, rng: np.random.Generator) -> _Legs:
        goal, direction = legs.goal.copy(), legs.direction.copy()
        left_s = legs.left_s - self._interval_s
        late = np.flatnonzero(left_s <= 0.0)
        while late.size:
            start, goal[late] = goal[late], self._draw(late.size, rng)
            direction[late], seconds = self._way(start, goal[late])
            left_s[late] += seconds
            late = late[left_s[late] <= 0.0]
        return _Legs(goal, direction, left_s)

    def _way(self, start: Points, goal: Points) -> tuple[Points, Floats]:
        """Return the direction of legs and how long they take, the pause at their end included."""
        way = goal - start
        length_m = np.abs(way)
        # Two waypoints in one place have no direction, and need none.
        direction = way / np.maximum(length_m, 1e-9)
        return direction, length_m / self._speed + self._pause_s
