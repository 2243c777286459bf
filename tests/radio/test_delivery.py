import numpy as np
import pytest

from airtune.radio.delivery import (
    expected_transmissions,
    likely_tries,
    rayleigh_outage,
    residual_loss,
    safe_packets,
    sample_arq,
)
from airtune.radio.packet_errors import packet_error_rate

SNR_DB = np.array([0.0, 5.0, 10.0, 15.0, 20.0])
waterfall = packet_error_rate("waterfall", 10 ** (SNR_DB / 10))


def test_waterfall_table():
    assert waterfall == pytest.approx([0.634, 0.272, 0.0956, 0.0313, 0.0100], abs=5e-4)


def test_constant_error_rate_has_the_shape_of_the_links():
    assert packet_error_rate(0.1, np.ones(3)).tolist() == [0.1, 0.1, 0.1]


def test_arq_table_with_four_tries():
    assert expected_transmissions(waterfall, 4) == pytest.approx(
        [2.29, 1.37, 1.106, 1.032, 1.010], abs=6e-3
    )
    assert residual_loss(waterfall, 4) == pytest.approx(
        [1.6e-1, 5.5e-3, 8.4e-5, 9.6e-7, 1e-8], rel=0.05
    )
    assert expected_transmissions(0.2, None) == pytest.approx(1.25)


def test_rayleigh_outage_against_monte_carlo():
    power = np.random.default_rng(0).exponential(10.0, 200_000)
    sampled = np.mean(np.log2(1 + power) < 2.0)
    assert rayleigh_outage(2.0, 10.0) == pytest.approx(1 - np.exp(-0.3))
    assert sampled == pytest.approx(rayleigh_outage(2.0, 10.0), abs=0.005)


def test_sampled_arq_has_the_mean_and_the_losses_of_the_formula():
    rng = np.random.default_rng(1)
    draws = [sample_arq(50, 0.4, 3, rng) for _ in range(4000)]
    per_packet = np.mean([d.transmissions for d in draws]) / 50
    assert per_packet == pytest.approx(expected_transmissions(0.4, 3), rel=0.01)
    assert np.mean([d.lost for d in draws]) == pytest.approx(1 - (1 - 0.4**3) ** 50, abs=0.02)
    assert all(d.tries <= 3 for d in draws)


def test_endless_arq_is_negative_binomial():
    rng = np.random.default_rng(2)
    draws = [sample_arq(20, 0.5, None, rng) for _ in range(4000)]
    totals = np.array([d.transmissions for d in draws])
    oracle = 20 + np.random.default_rng(3).negative_binomial(20, 0.5, 4000)
    assert not any(d.lost for d in draws)
    assert totals.mean() == pytest.approx(oracle.mean(), rel=0.02)
    assert totals.std() == pytest.approx(oracle.std(), rel=0.06)


def test_arq_without_errors_or_without_hope():
    rng = np.random.default_rng(0)
    assert sample_arq(7, 0.0, None, rng) == (7, 1, False)
    assert sample_arq(0, 0.5, None, rng) == (0, 0, False)
    assert sample_arq(1, 1.0, None, rng).lost


def test_safe_packets_fit_nearly_always():
    rng = np.random.default_rng(4)
    packets = int(safe_packets(1000.0, 0.3))
    assert 600 < packets < 700
    over = [sample_arq(packets, 0.3, None, rng).transmissions > 1000 for _ in range(3000)]
    assert np.mean(over) < 0.003
    # 0.9^10 = 0.349 of ten tries all succeed; P(X <= 5) = 0.0016 but P(X <= 4) = 0.00015.
    assert safe_packets([10.5, 10.5], [0.1, 0.0]).tolist() == [5.0, 10.5]


def test_likely_tries_are_rarely_exceeded():
    rng = np.random.default_rng(5)
    depth = likely_tries(200.0, 0.2, None)
    deeper = [sample_arq(200, 0.2, None, rng).tries > depth for _ in range(3000)]
    assert np.mean(deeper) < 0.004
    assert likely_tries(200.0, 0.2, 2) == 2.0
    assert likely_tries(200.0, 0.0, None) == 1.0
