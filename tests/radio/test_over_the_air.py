"""Sums over the air: numbers by hand, budgets from the symbols sent, errors by Monte Carlo."""

import itertools

import numpy as np
import pytest
from scipy import integrate

from airtune.errors import UserError
from airtune.keyed import generator
from airtune.radio import over_the_air
from airtune.radio.over_the_air import (
    OverTheAir,
    aggregate,
    airtime_s,
    participating_share,
    truncated_power,
)

BAND = {"power_w": 0.2, "noise_w_per_hz": 1e-10, "bandwidth_hz": 1e6}


def clients(count=5, entries=41, subchannels=7, seed=0):
    """Return vectors, weights, gains and mean gains of clients of unlike strength."""
    rng = np.random.default_rng(seed)
    mean_gain = 10 ** rng.uniform(-3, -1, count)
    gain = mean_gain[:, None] * rng.exponential(1.0, (count, subchannels))
    weights = rng.dirichlet(np.ones(count))
    return rng.standard_normal((count, entries)) + 0.3, weights, gain, mean_gain


def test_truncation_by_hand():
    thresholds = np.array([0.01, 0.1, 0.5])
    assert participating_share(thresholds) == pytest.approx([0.990, 0.905, 0.607], abs=5e-4)
    assert 2.0 / truncated_power(2.0, thresholds) == pytest.approx([4.04, 1.82, 0.56], abs=5e-3)


def test_airtime_knows_no_clients():
    assert airtime_s(10**6, 1e6) == 0.5
    for count in (1, 50):
        vectors, weights, gain, mean = clients(count, 1000)
        found = aggregate(vectors, weights, gain, mean, OverTheAir(), generator(0, "t"), **BAND)
        assert found.seconds == 500 / 1e6
    assert airtime_s(41, 1e6) == 21e-6


def test_the_weakest_client_decides_by_hand():
    # Symbols of unit power, P |h|^2 / lambda^2: 0.2 * 1 / 0.36 and 0.2 * 0.25 / 0.16 = 0.3125.
    vectors = np.array([[1.0, 0.0, 0.0, -1.0], [0.0, 1.0, 1.0, 0.0]])
    for power in ("vector", "symbol"):
        found = aggregate(
            vectors, [0.6, 0.4], [1.0, 0.25], [1.0, 1.0], OverTheAir(power=power),
            generator(0, "t"), **BAND,
        )  # fmt: skip
        assert found.scale == pytest.approx(0.3125)
        # Two symbols of noise N / c, on four entries.
        assert found.predicted_mse == pytest.approx(2 * 1e-4 / 0.3125 / 4)
        # Of the budget of 0.2 W for 2 microseconds the first spends c 0.36 / 0.2.
        assert found.joules == pytest.approx([0.3125 * 0.36 * 2e-6, 0.2 * 2e-6])
        assert found.took_part.all()


@pytest.mark.parametrize("power", ["vector", "symbol"])
@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_budgets_are_kept_and_used_by_somebody(power, threshold):
    vectors, weights, gain, mean = clients(entries=42)
    options = OverTheAir(power=power, threshold=threshold)
    found = aggregate(vectors, weights, gain, mean, options, generator(0, "t"), **BAND)
    s = vectors[:, 0::2] + 1j * vectors[:, 1::2]
    h, at = np.sqrt(gain), np.arange(21) % 7
    x = np.sqrt(found.scale) * weights[:, None] * s / h[:, at] * found.took_part[:, at]
    drawn = np.abs(x) ** 2
    used = drawn.mean(1) if power == "vector" else drawn.max(1)
    assert used.max() == pytest.approx(0.2, rel=1e-12)
    assert found.joules == pytest.approx(drawn.sum(1) / 1e6)
    assert np.array_equal(found.took_part, gain / mean[:, None] >= threshold)


def test_the_average_budget_holds_over_fading():
    rng = np.random.default_rng(1)
    vectors = np.sign(rng.standard_normal((2, 400_000)))  # complex symbols of power 2
    mean = np.array([1e-3, 2e-3])
    gain = mean[:, None] * rng.exponential(1.0, (2, 200_000))
    options = OverTheAir(power="average", threshold=0.1)
    found = aggregate(vectors, [0.5, 0.5], gain, mean, options, generator(0, "t"), **BAND)
    # rho_0 = 0.2 / E1(0.1) = 0.2 / 1.8229 for unit symbols over a unit gain; the weaker decides.
    assert found.scale == pytest.approx(0.2 / 1.8229 * 1e-3 / (0.25 * 2), rel=1e-4)
    # The mean of 1 / g over 200,000 symbols has a relative error of 0.2 %.
    assert found.joules / found.seconds == pytest.approx([0.2, 0.1], rel=0.01)
    assert found.took_part.mean(1) == pytest.approx([0.905, 0.905], abs=0.003)


CASES = [
    {},
    {"threshold": 0.5},
    {"threshold": 0.5, "rescale": True},
    {"threshold": 1.5, "rescale": True, "power": "average", "csi_error": 0.05},
    {"threshold": 0.3, "csi_error": 0.2, "phase_rad": 0.5, "power": "symbol"},
    {"threshold": 0.3, "csi_error": 0.1, "phase_rad": 0.8, "rescale": True, "power": "average"},
    {"phase_rad": 1.2},
]


# With three entries, a quarter of what two symbols carry is not read.
@pytest.mark.parametrize(
    ("case", "entries", "draws"),
    [*((case, 201, 800) for case in CASES), (CASES[4], 3, 1500)],
)
def test_the_predicted_error_is_that_of_many_draws(case, entries, draws):
    vectors, weights, gain, mean = clients(entries=entries)
    options = OverTheAir(**case)
    rng = np.random.default_rng(2)
    found = [aggregate(vectors, weights, gain, mean, options, rng, **BAND) for _ in range(draws)]
    errors = np.array([each.realised_mse for each in found])
    truth = weights @ vectors
    assert errors[0] == pytest.approx(((found[0].total - truth) ** 2).mean(), rel=1e-12)
    tolerance = 4.5 * errors.std() / np.sqrt(draws) + 1e-12
    assert errors.mean() == pytest.approx(found[0].predicted_mse, abs=tolerance)
    assert tolerance < 0.2 * found[0].predicted_mse


def test_what_a_turned_symbol_loses_of_its_only_entry():
    found = aggregate(
        np.array([[2.0]]), [1.0], [1.0], [1.0], OverTheAir(phase_rad=0.6), generator(0, "t"), **BAND
    )

    def density(phase):
        return np.exp(-0.5 * (phase / 0.6) ** 2) / (0.6 * np.sqrt(2 * np.pi))

    turned, _ = integrate.quad(lambda p: density(p) * (2 * np.cos(p) - 2) ** 2, -6, 6)
    # c = P / 4, and half of a symbol's noise is read.
    assert found.predicted_mse == pytest.approx(turned + 0.5 * 1e-4 / 0.05, rel=1e-9)


def test_each_imperfection_costs_and_is_seen_by_the_prediction():
    vectors, weights, gain, mean = clients(entries=2000)
    quiet = {**BAND, "noise_w_per_hz": 0.0}

    def predicted(band=quiet, **case):
        options = OverTheAir(**case)
        return aggregate(
            vectors, weights, gain, mean, options, generator(0, "t"), **band
        ).predicted_mse

    assert predicted() == pytest.approx(0.0, abs=1e-25)
    for case in ({"phase_rad": 0.1}, {"csi_error": 0.01}, {"threshold": 0.2}):
        assert predicted(**case) > 1e-4
    assert predicted(BAND) > 1e-4
    vectors += 3.0  # what clients have in common is what rescaling keeps
    assert predicted(threshold=0.5, rescale=True) < 0.2 * predicted(threshold=0.5)


def test_without_noise_the_sum_is_exact():
    vectors, weights, gain, mean = clients(entries=41)
    band = {**BAND, "noise_w_per_hz": 0.0}
    found = aggregate(vectors, weights, gain, mean, OverTheAir(), generator(0, "t"), **band)
    assert found.total == pytest.approx(weights @ vectors, abs=1e-12)
    assert (found.receive_snr, found.realised_mse) == (np.inf, pytest.approx(0.0, abs=1e-28))


def test_the_receive_snr_by_hand():
    found = aggregate(
        np.ones((1, 20_000)), [1.0], [0.5], [1.0], OverTheAir(), generator(0, "t"), **BAND
    )
    assert found.receive_snr == pytest.approx(0.2 * 0.5 / 1e-4)
    # The error of an entry is half of the noise of a symbol, over c.
    assert found.scale == pytest.approx(0.2 * 0.5 / 2)
    assert found.predicted_mse == pytest.approx(0.5 * 1e-4 / found.scale)
    assert found.realised_mse == pytest.approx(found.predicted_mse, rel=0.05)


@pytest.mark.parametrize("subchannels", [1, 7])
def test_pieces_do_not_matter(monkeypatch, subchannels):
    vectors, weights, gain, mean = clients(entries=101, subchannels=subchannels)
    options = OverTheAir(threshold=0.2, csi_error=0.1, phase_rad=0.2, rescale=True)
    found = []
    for at_once in (2**20, 5 * 8, 1):
        monkeypatch.setattr(over_the_air, "_AT_ONCE", at_once)
        rng = generator(3, "over the air", 0)
        found.append(aggregate(vectors, weights, gain, mean, options, rng, **BAND))
    for one, other in itertools.pairwise(found):
        assert one.total == pytest.approx(other.total, rel=1e-12)
        assert one.predicted_mse == pytest.approx(other.predicted_mse, rel=1e-12)
        assert one.scale == pytest.approx(other.scale, rel=1e-12)


def test_single_precision_and_flat_channels():
    vectors, weights, gain, mean = clients(subchannels=1)
    found = [
        aggregate(given, weights, power, mean, OverTheAir(), generator(0, "t"), **BAND)
        for given, power in ((vectors, gain), (vectors.astype(np.float32), gain[:, 0]))
    ]
    assert found[1].total == pytest.approx(found[0].total, abs=1e-6)


def test_nobody_and_nothing():
    vectors, weights, gain, mean = clients()
    silent = OverTheAir(threshold=50.0, rescale=True)
    found = aggregate(vectors, weights, gain, mean, silent, generator(0, "t"), **BAND)
    assert not found.took_part.any() and not found.total.any() and not found.joules.any()
    assert found.predicted_mse == pytest.approx(((weights @ vectors) ** 2).mean())
    assert (found.realised_mse, found.receive_snr) == (pytest.approx(found.predicted_mse), 0.0)
    still = aggregate(0 * vectors, weights, gain, mean, OverTheAir(), generator(0, "t"), **BAND)
    assert (still.total == 0).all() and still.predicted_mse == 0.0 and not still.joules.any()


def test_mistakes_are_sentences():
    vectors, weights, gain, mean = clients()
    options, rng = OverTheAir(), generator(0, "t")
    for wrong, hint in (
        ((vectors[0], weights, gain, mean), "vectors must be"),
        ((vectors, weights[1:], gain, mean), "those of 5 clients"),
        ((vectors, -weights, gain, mean), "weights must not be negative"),
        ((vectors, weights, 0 * gain, mean), "cannot be inverted"),
    ):
        with pytest.raises(UserError, match=hint):
            aggregate(*wrong, options, rng, **BAND)
    for place, name in enumerate(("vectors", "weights", "gain", "mean_gain")):
        for value in (np.nan, np.inf, -np.inf):
            wrong = [np.array(each, dtype=np.float64) for each in (vectors, weights, gain, mean)]
            wrong[place].flat[3] = value
            with pytest.raises(UserError, match=f"^{name} must be finite"):
                aggregate(*wrong, options, rng, **BAND)
    for name, value in (("power_w", 0.0), ("power_w", np.nan), ("bandwidth_hz", 0.0),
                        ("noise_w_per_hz", -1.0), ("noise_w_per_hz", np.inf)):  # fmt: skip
        with pytest.raises(UserError, match=f"^{name} is {value:g}; it must be a finite number"):
            aggregate(vectors, weights, gain, mean, options, rng, **(BAND | {name: value}))
    with pytest.raises(ValueError, match="needs a threshold above 0"):
        OverTheAir(power="average")
