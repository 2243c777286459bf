"""Virtual queues: sums by hand, and what theory says of V in a simulated system."""

import numpy as np
import pytest

from airtune.scheduling.lyapunov import VirtualQueues


def test_queues_and_scores_by_hand():
    control = VirtualQueues([0.5, 1.0], v=3.0)
    assert control.start().tolist() == [0.0, 0.0]
    queue = control.after(np.array([0.2, 0.0]), [0.7, 0.4])
    assert queue == pytest.approx([0.4, 0.0])
    score = control.score(np.array([2.0, 0.5]), [1.0, 0.0], [[0.1, 0.2], [1.0, 4.0]])
    assert score == pytest.approx([3.0 + 0.2 + 0.1, 2.0 + 2.0])
    assert control.choose(np.array([2.0, 0.5]), [1.0, 0.0], [[0.1, 0.2], [1.0, 4.0]]) == 0
    assert control.choose(np.zeros(2), [1.0, 1.0], np.ones((2, 2))) == 0  # the first of equals
    assert control.overdraft(np.array([2.0, 0.0]), 10).tolist() == [0.2, 0.0]


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="v is -1"):
        VirtualQueues(1.0, v=-1.0)


class Sender(VirtualQueues):
    """Sends at one of four powers over a channel that is drawn anew each round."""

    POWERS = np.array([0.0, 1.0, 2.0, 4.0])

    def act(self, queue, gain):
        lost = -np.log2(1.0 + self.POWERS * gain)
        taken = self.choose(queue, lost, self.POWERS[:, None])
        return lost[taken], self.POWERS[taken]


BUDGET, ROUNDS = 1.0, 20_000


def simulated(v):
    """(mean penalty, mean power, largest and last queue) over the same channels for every V."""
    control, rng = Sender(BUDGET, v), np.random.default_rng(0)
    queue, penalties, powers, largest = control.start(), [], [], 0.0
    for gain in rng.exponential(1.0, ROUNDS):
        penalty, power = control.act(queue, gain)
        queue = control.after(queue, power)
        penalties.append(penalty)
        powers.append(power)
        largest = max(largest, queue[0])
    return np.mean(penalties), np.mean(powers), largest, control.overdraft(queue, ROUNDS)[0]


def best_mean(budget):
    """The least mean penalty of any policy: the Lagrangian dual over the same distribution."""
    gains = -np.log1p(-(np.arange(20_000) + 0.5) / 20_000)
    lost = -np.log2(1.0 + Sender.POWERS[:, None] * gains)
    prices = np.linspace(0.0, 3.0, 601)
    return max((lost + p * Sender.POWERS[:, None]).min(0).mean() - p * budget for p in prices)


@pytest.fixture(scope="module")
def runs():
    return {v: simulated(v) for v in (0.5, 2.0, 8.0, 32.0)}


def test_no_round_exceeds_the_budget_by_more_than_its_queue(runs):
    for _, power, _, overdraft in runs.values():
        assert power <= BUDGET + overdraft + 1e-12


def test_the_penalty_comes_within_b_over_v_of_the_best(runs):
    best = best_mean(BUDGET)
    most = 0.5 * max(BUDGET, 4.0 - BUDGET) ** 2  # B: half the largest square of usage less budget
    gaps = {v: penalty - best for v, (penalty, *_) in runs.items()}
    noise = 0.02  # three standard errors of the mean of 20,000 draws of about one
    assert all(-noise - overdraft <= gaps[v] for v, (*_, overdraft) in runs.items())
    assert all(gap <= most / v + noise for v, gap in gaps.items())
    assert gaps[0.5] > gaps[2.0] > gaps[8.0]
    assert gaps[0.5] > 0.1  # a small V really costs something here


def test_queues_grow_as_v_does(runs):
    largest = {v: queue for v, (_, _, queue, _) in runs.items()}
    assert 3.0 < largest[32.0] / largest[8.0] < 5.0
    # Nobody sends once Q is above V times the largest slope, 1 / ln 2 times the best gain.
    assert all(queue <= v * 12.0 / np.log(2.0) + 4.0 for v, queue in largest.items())
