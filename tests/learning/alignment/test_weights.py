"""Weights of two objectives against a search over all of them."""

import numpy as np
import pytest
import torch

from airtune.learning.alignment.weights import anchored, min_norm, products

RNG = np.random.default_rng(0)
GRID = np.linspace(0.0, 1.0, 20001)
PREFERENCE = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0, 0.4])


def pairs(scale=1.0):
    """Six pairs: opposed, alike, orthogonal and of unequal length, so that both ends occur."""
    u, v = RNG.normal(size=(2, 6, 700))
    v[0] = -0.5 * u[0] + 0.1 * v[0]
    v[1] = u[1] + 0.01 * v[1]
    v[2] = 3.0 * u[2] + 0.1 * v[2]  # both ways, the shorter one is in the way of the longer
    u[3] = 3.0 * v[3] + 0.1 * u[3]
    return [torch.from_numpy(scale * x).float() for x in (u, v)]


def best(u, v, kappa=0.0, a=0.0):
    """Search the grid for the weight that is best by what it is to minimise."""
    u, v = u.double().numpy(), v.double().numpy()
    directions = GRID[:, None] * u + (1 - GRID[:, None]) * v
    return GRID[np.argmin((directions**2).sum(1) + kappa * (GRID - a) ** 2)]


def test_the_shortest_direction_is_found():
    u, v = pairs()
    found = min_norm(products([u], [v]))
    for slot in range(6):
        assert found[slot].item() == pytest.approx(best(u[slot], v[slot]), abs=1e-4)
    assert found[2].item() == 1.0  # v is the longer one
    assert found[3].item() == 0.0


def test_the_anchored_weight_minimises_its_sum():
    u, v = pairs()
    found = anchored(products([u], [v]), PREFERENCE, 0.3)
    for slot, a in enumerate(PREFERENCE.tolist()):
        mean = 0.5 * (u[slot].square().sum() + v[slot].square().sum()).item()
        assert found[slot].item() == pytest.approx(best(u[slot], v[slot], 0.3 * mean, a), abs=1e-4)
    assert not torch.allclose(found, min_norm(products([u], [v])), atol=1e-2)


def test_by_hand():
    """u = (1, 0), v = (0, 2): g = 4/5; anchored at 0, kappa 2: k = 5, 4/10."""
    given = products([torch.tensor([[1.0, 0.0]])], [torch.tensor([[0.0, 2.0]])])
    nothing = torch.zeros(1)
    assert min_norm(given).item() == pytest.approx(0.8)
    assert anchored(given, nothing, 2.0).item() == pytest.approx(0.4)


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**13])  # exact in floats
def test_the_losses_scale_does_not_count(scale):
    state = RNG.bit_generator.state
    u, v = pairs()
    RNG.bit_generator.state = state
    plain, scaled = products([u], [v]), products(*[[x] for x in pairs(scale)])
    assert torch.allclose(min_norm(plain), min_norm(scaled), atol=1e-5)
    both = [anchored(p, PREFERENCE, 0.3) for p in (plain, scaled)]
    assert torch.allclose(*both, atol=1e-5)


def test_kappa_leads_from_the_shortest_direction_to_the_preference():
    found = products(*[[x] for x in pairs()])
    assert torch.allclose(anchored(found, PREFERENCE, 1e-9), min_norm(found), atol=1e-4)
    assert torch.allclose(anchored(found, PREFERENCE, 1e9), PREFERENCE, atol=1e-4)


def test_where_nothing_decides():
    u, _ = pairs()
    zero = torch.zeros_like(u)
    equal, none = products([u], [u]), products([zero], [zero])
    assert min_norm(equal).tolist() == min_norm(none).tolist() == [0.5] * 6
    assert torch.allclose(anchored(equal, PREFERENCE, 0.1), PREFERENCE)
    assert torch.allclose(anchored(none, PREFERENCE, 0.1), PREFERENCE)
    assert torch.equal(anchored(none, PREFERENCE, 0.0), PREFERENCE)
    # A gradient that is zero is the shortest direction: the point is stationary for both.
    assert min_norm(products([zero], [u])).tolist() == [1.0] * 6
    assert min_norm(products([u], [zero])).tolist() == [0.0] * 6


def test_nearly_equal_gradients_keep_their_digits():
    """The gap is 1e-5 of the gradients; from three products in single precision it is noise."""
    u = torch.from_numpy(RNG.normal(size=(1, 1000))).float()
    v = u + 1e-5 * torch.from_numpy(RNG.normal(size=(1, 1000))).float()
    found = anchored(products([u], [v]), torch.tensor([0.3]), 1e-11)
    a, b = u.double().numpy()[0], v.double().numpy()[0]
    k = 1e-11 * 0.5 * (a @ a + b @ b)
    expected = np.clip((((b - a) @ b) + k * 0.3) / (((a - b) ** 2).sum() + k), 0, 1)
    assert found.item() == pytest.approx(expected, abs=1e-4)


def test_blocks_and_neighbours_make_no_difference():
    u, v = pairs()
    cut = [[x[:, :512], x[:, 512:]] for x in (u, v)]
    whole, parts = products([u], [v]), products(*cut)
    assert torch.allclose(min_norm(whole), min_norm(parts), atol=1e-7)
    for slot in range(6):
        alone = products([u[slot : slot + 1]], [v[slot : slot + 1]])
        assert torch.equal(alone.gap[0], whole.gap[slot])
        assert torch.equal(alone.towards[0], whole.towards[slot])
