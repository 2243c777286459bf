import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from airtune.radio.rate import RateModel, rate_bps
from airtune.scheduling.bandwidth import equal_shares, min_max_delay

PLAIN = RateModel()
SHANNON = RateModel(gap_db=0.0, max_efficiency=100.0, min_snr_db=-30.0)


def ten_clients():
    rng = np.random.default_rng(0)
    return rng.uniform(4e6, 2e7, 10), 10 ** rng.uniform(6.3, 8.5, 10), rng.uniform(0.1, 1.0, 10)


@pytest.mark.parametrize("model", [PLAIN, SHANNON])
def test_optimum_agrees_with_a_general_solver(model):
    bits, snr_hz, start = ten_clients()
    _, finish = min_max_delay(bits, snr_hz, start, 20e6, model)

    # SLSQP over shares x (of 20 MHz) and the finish time t: minimise t with t >= every finish.
    def slack(x):
        return x[-1] - start - bits / rate_bps(x[:-1] * 20e6, snr_hz, model)

    first = np.append(np.full(10, 0.1), 1.0)
    first[-1] = (start + bits / rate_bps(np.full(10, 2e6), snr_hz, model)).max()
    found = minimize(
        lambda x: x[-1],
        first,
        method="SLSQP",
        bounds=[(1e-3, 1.0)] * 10 + [(0.0, None)],
        constraints=[
            {"type": "ineq", "fun": slack},
            {"type": "ineq", "fun": lambda x: 1.0 - x[:-1].sum()},
        ],
        options={"maxiter": 300, "ftol": 1e-10},
    )
    assert found.success
    assert finish.max() == pytest.approx(found.fun, rel=1e-5)


def test_all_finish_together_and_use_everything():
    bits, snr_hz, start = ten_clients()
    width, finish = min_max_delay(bits, snr_hz, start, 20e6, SHANNON)
    assert width.sum() == pytest.approx(20e6, rel=1e-12)
    assert np.ptp(finish) < 1e-9
    equal = start + bits / rate_bps(equal_shares(10, 20e6), snr_hz, SHANNON)
    assert finish.max() < 0.95 * equal.max()


def test_equal_clients_get_equal_shares():
    width, _ = min_max_delay(1e6, np.full(4, 1e8), 0.0, 8e6, PLAIN)
    assert width == pytest.approx(np.full(4, 2e6))


def test_a_client_held_back_by_power_leaves_the_rest_to_others():
    snr_hz = np.array([1e5, 1e9])
    width, finish = min_max_delay(1e6, snr_hz, 0.0, 20e6, PLAIN)
    fastest = float(rate_bps(np.inf, 1e5, PLAIN))
    assert finish[0] == pytest.approx(1e6 / fastest)
    assert finish[1] < finish[0]
    assert width.sum() == pytest.approx(20e6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(1.0, 1e9), st.floats(1e5, 1e12), st.floats(0.0, 1e4)),
        min_size=1,
        max_size=6,
    ),
    st.floats(1e6, 1e8),
)
def test_never_worse_than_equal_and_within_the_band(clients, bandwidth_hz):
    bits, snr_hz, start = (np.array(column) for column in zip(*clients, strict=True))
    width, finish = min_max_delay(bits, snr_hz, start, bandwidth_hz, PLAIN)
    equal = start + bits / rate_bps(equal_shares(len(clients), bandwidth_hz), snr_hz, PLAIN)
    assert width.sum() <= bandwidth_hz * (1 + 1e-12)
    assert finish.max() <= equal.max() * (1 + 1e-9)
