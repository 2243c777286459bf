"""The scheduler that keeps a latency budget: each control, its queues, and whom it refuses."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from airtune.errors import UserError
from airtune.radio.air import Air
from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
from airtune.radio.rate import rate_bps
from airtune.scheduling.allocate import allocate
from airtune.scheduling.latency import LatencyConfig, LatencyScheduler, Pieces, Upload

CONTROLS = ["tsfa", "round", "limit", "client_ratio", "common_ratio", "none"]
CELL = CellConfig(bandwidth_hz=4e6, fading="none", packet_error=0.0)
PIECES = Pieces(20_000, np.full(8, 200_000.0), 1)  # 1.62 Mbit in all
SNR_HZ = np.array([1e6, 4e6, 2e7, 1e9])
EVERYBODY = np.arange(4)


def links_of(snr_hz, config=CELL, mean=None, round=0):
    """A round in which clients have just these links."""
    snr_hz = np.array(snr_hz, dtype=float)
    mean = snr_hz if mean is None else np.array(mean, dtype=float)
    links = Cell(config, snr_hz.size, seed=0).links(round)
    return dataclasses.replace(links, snr_hz=snr_hz, planned_snr_hz=snr_hz, mean_snr_hz=mean)


def scheduler_of(cell=CELL, pieces=PIECES, weights=None, asked=4, clients=4, **options):
    weights = np.full(clients, 1 / clients) if weights is None else np.array(weights)
    return LatencyScheduler(LatencyConfig(**options), cell, pieces, weights, asked)


def pieces_of(bits, pieces=PIECES):
    """How many whole pieces these bits are, which they have to be."""
    sizes = pieces.fixed_bits + np.concatenate([[0.0], np.sort(pieces.bits)[::-1].cumsum()])
    place = int(np.argmin(np.abs(sizes - bits)))
    assert sizes[place] == pytest.approx(bits)
    return place


def seconds_of(grant, compute=0.0):
    return compute + grant.bits / grant.rate_bps


def begun(scheduler, queue, round_queue=0.0, errors=None):
    """The state of a run whose queues are these."""
    state = scheduler.start()
    state |= {"queue": torch.tensor(queue, dtype=torch.float64), "round_queue": round_queue}
    if errors is not None:
        state["errors"] = torch.tensor(errors, dtype=torch.float64)
    return state


# ---- every control


@pytest.mark.parametrize("control", CONTROLS)
def test_grants_fit_the_band_and_say_the_rate_of_their_share(control):
    scheduler = scheduler_of(control=control)
    links = links_of(SNR_HZ)
    plan = scheduler.plan(scheduler.start(), links, np.array([3, 0, 2]), np.full(3, 0.05))
    assert list(plan.grants) == [0, 2, 3] and plan.skipped == {}
    assert sum(g.bandwidth_hz for g in plan.grants.values()) == pytest.approx(CELL.bandwidth_hz)
    for client, grant in plan.grants.items():
        rate = rate_bps(grant.bandwidth_hz, SNR_HZ[client], CELL.rate)
        assert grant.rate_bps == pytest.approx(float(rate))
        assert grant.client == client


@pytest.mark.parametrize("control", CONTROLS)
def test_an_ideal_cell_grants_without_bound(control):
    ideal = CellConfig.model_validate("ideal")
    scheduler = scheduler_of(ideal, control=control)
    links, state = Cell(ideal, 4, seed=0).links(0), scheduler.start()
    plan = scheduler.plan(state, links, np.array([0, 2]), np.full(2, 100.0))
    assert [grant.bits for grant in plan.grants.values()] == [math.inf, math.inf]
    assert plan.skipped == {}
    scores = torch.rand(8)
    assert scheduler.after(state, [Upload(0, 100.0, math.inf, scores)]) is state


@pytest.mark.parametrize("control", CONTROLS)
def test_a_plan_is_a_function_of_state_and_links(control):
    cell = Cell(CELL, 6, seed=0)

    def run(scheduler, interrupted):
        state, plans = scheduler.start(), []
        for round in range(4):
            links = cell.links(round)
            if interrupted:
                scheduler.plan(scheduler.start(), cell.links(99), np.arange(3), np.zeros(3))
            plans.append(scheduler.plan(state, links, np.arange(6), np.full(6, 0.01)))
            uploads = [
                Upload(g.client, min(seconds_of(g), 9.0), g.rate_bps, torch.arange(8.0))
                for g in plans[-1].grants.values()
            ]
            state = scheduler.after(state, uploads)
        return plans

    options = {"clients": 6, "asked": 6, "control": control, "latency_s": 0.4}
    first = run(scheduler_of(**options), interrupted=False)
    assert first == run(scheduler_of(**options), interrupted=True)
    assert len(first[0].grants) >= 3


@pytest.mark.parametrize("control", CONTROLS)
def test_planning_leaves_the_state_alone(control):
    scheduler = scheduler_of(control=control)
    state = begun(scheduler, [0.1, 0.2, 0.3, 0.4], 0.5)
    copy = {name: torch.as_tensor(value).clone() for name, value in state.items()}
    scheduler.plan(state, links_of(SNR_HZ), EVERYBODY, np.zeros(4))
    assert all(torch.equal(torch.as_tensor(state[name]), copy[name]) for name in copy)


@pytest.mark.parametrize("control", CONTROLS)
def test_who_is_out_of_reach_is_skipped_and_shares_nothing(control):
    scheduler = scheduler_of(control=control)
    links = links_of([1e7, 10.0, 1e8, 1e9], mean=[1e7, 1e7, 1e8, 1e9])
    plan = scheduler.plan(scheduler.start(), links, EVERYBODY, np.zeros(4))
    assert plan.skipped == {1: "outage"}
    assert sum(g.bandwidth_hz for g in plan.grants.values()) == pytest.approx(CELL.bandwidth_hz)


def test_unknown_controls_and_budgets_of_nothing_are_refused():
    for wrong in ({"control": "best"}, {"latency_s": 0.0}, {"v": 0.0}, {"queue_floor": -0.1}):
        with pytest.raises(ValidationError):
            LatencyConfig(**wrong)


# ---- tsfa


@pytest.mark.parametrize("bandwidth", ["square_root", "equal", "exact"])
def test_tsfa_grants_whole_pieces_and_notes_the_queues(bandwidth):
    scheduler = scheduler_of(bandwidth=bandwidth)
    state = begun(scheduler, [0.3, 0.0, 2.0, 50.0])
    plan = scheduler.plan(state, links_of(SNR_HZ), EVERYBODY, np.zeros(4))
    counts = [pieces_of(grant.bits) for grant in plan.grants.values()]
    assert counts[1] == 8  # an empty queue asks for nothing
    assert min(counts) >= 1
    assert [plan.notes[client]["queue"] for client in range(4)] == [0.3, 0.0, 2.0, 50.0]
    equal = {grant.bandwidth_hz for grant in plan.grants.values()} == {1e6}
    assert equal == (bandwidth == "equal")


def test_with_equal_bands_each_client_weighs_error_against_delay_by_itself():
    errors = np.random.default_rng(0).dirichlet(np.ones(8), 4)
    weights, queue = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.6, 0.1, 0.5, 2.0])
    scheduler = scheduler_of(bandwidth="equal", weights=weights, latency_s=0.4, v=2.0)
    state = begun(scheduler, queue, errors=errors)
    plan = scheduler.plan(state, links_of(SNR_HZ), EVERYBODY, np.zeros(4))
    # V relative to the cell: by the clients, the budget, and a usual client's seconds for all.
    rate = rate_bps(1e6, SNR_HZ, CELL.rate)
    v = 2.0 * 0.4 * np.median(1.62e6 / rate) * 4
    found = [pieces_of(grant.bits) for grant in plan.grants.values()]
    for n in range(4):
        best = np.sort(errors[n])[::-1]
        costs = {
            m: v * weights[n] * (1 - best[:m].sum()) + queue[n] * (2e4 + 2e5 * m) / rate[n]
            for m in range(1, 9)
        }
        assert found[n] == min(costs, key=costs.get)
    assert len(set(found)) > 1


def test_a_longer_queue_sends_less_and_a_larger_v_more():
    counts = {}
    for v, queue in itertools.product((0.3, 3.0, 30.0), (0.1, 1.0, 10.0)):
        scheduler = scheduler_of(v=v, bandwidth="equal")
        state = begun(scheduler, [queue] * 4, errors=[[0.5**k for k in range(1, 9)]] * 4)
        plan = scheduler.plan(state, links_of(SNR_HZ), EVERYBODY, np.zeros(4))
        counts[v, queue] = sum(pieces_of(grant.bits) for grant in plan.grants.values())
    for v in (0.3, 3.0, 30.0):
        assert counts[v, 0.1] > counts[v, 1.0] > counts[v, 10.0] or counts[v, 10.0] == 4
    for queue in (0.1, 1.0, 10.0):
        assert counts[0.3, queue] < counts[3.0, queue] <= counts[30.0, queue] or queue == 10.0
    assert counts[0.3, 10.0] == 4


def test_long_queues_get_the_band():
    scheduler = scheduler_of()
    links = links_of([1e8] * 4)
    plan = scheduler.plan(begun(scheduler, [0.1, 0.1, 5.0, 0.1]), links, EVERYBODY, np.zeros(4))
    widths = [grant.bandwidth_hz for grant in plan.grants.values()]
    assert widths[2] == max(widths) and widths[2] > 1.2 * widths[0]
    assert widths[0] == pytest.approx(widths[1]) == pytest.approx(widths[3])


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_empty_queues_still_share_the_band(floor):
    # With a floor of nothing, which the options allow, all loads are zero; so they are from warm
    # queues if everything fits the budget.
    scheduler = scheduler_of(queue_floor=floor, warm_queue=False)
    plan = scheduler.plan(scheduler.start(), links_of(SNR_HZ), EVERYBODY, np.zeros(4))
    widths = [grant.bandwidth_hz for grant in plan.grants.values()]
    assert sum(widths) == pytest.approx(CELL.bandwidth_hz) and min(widths) > 0


def test_an_empty_queue_among_others_is_not_starved():
    scheduler = scheduler_of(queue_floor=0.1)
    plan = scheduler.plan(
        begun(scheduler, [5.0, 0.0, 5.0, 5.0]), links_of([1e8] * 4), EVERYBODY, np.zeros(4)
    )
    assert plan.grants[1].bandwidth_hz > 0.1 * CELL.bandwidth_hz / 4


# ---- round


def test_the_round_control_lets_all_finish_together_and_watches_its_own_queue():
    scheduler = scheduler_of(control="round", latency_s=0.5)
    taken, sent = [], []
    for round_queue in (0.0, 0.5, 50.0):
        state = begun(scheduler, [7.0, 0.0, 7.0, 7.0], round_queue)
        plan = scheduler.plan(state, links_of([2e6, 4e6, 2e7, 1e8]), EVERYBODY, np.full(4, 0.02))
        taken.append(max(seconds_of(grant, 0.02) for grant in plan.grants.values()))
        sent.append(sum(pieces_of(grant.bits) for grant in plan.grants.values()))
    assert taken[0] > taken[1] > taken[2]
    assert sent[0] == 32 and sent[2] < sent[1] <= 32


# ---- baselines


def test_a_limit_is_what_arrives_in_time_with_an_equal_band():
    scheduler = scheduler_of(control="limit", latency_s=0.5)
    compute = np.array([0.1, 0.0, 0.2, 0.1])
    plan = scheduler.plan(scheduler.start(), links_of(SNR_HZ), EVERYBODY, compute)
    for client, grant in plan.grants.items():
        assert grant.bandwidth_hz == 1e6
        assert grant.bits == pytest.approx(grant.rate_bps * (0.5 - compute[client]))


def expected_count(bit_seconds, left):
    return int(np.clip(np.floor(8 * left / (bit_seconds * PIECES.whole) + 1e-9), 1, 8))


def test_ratios_follow_average_links_and_not_those_of_the_round():
    mean = np.array([1e6, 4e6, 2e7, 1e9])
    bit_seconds = 1 / rate_bps(1e6, mean, CELL.rate)
    counts = [expected_count(each, 0.4 - 0.05) for each in bit_seconds]
    assert len(set(counts)) >= 3
    for snr_hz in (mean, mean[::-1], 3 * mean):
        for control, expected in (("client_ratio", counts), ("common_ratio", [min(counts)] * 4)):
            scheduler = scheduler_of(control=control, latency_s=0.4)
            links = links_of(snr_hz, mean=mean)
            plan = scheduler.plan(scheduler.start(), links, EVERYBODY, np.full(4, 0.05))
            assert [pieces_of(grant.bits) for grant in plan.grants.values()] == expected
            assert {grant.bandwidth_hz for grant in plan.grants.values()} == {1e6}


def test_ratios_go_by_what_was_measured_once_there_is_something():
    scheduler = scheduler_of(control="client_ratio", latency_s=0.5)
    links, state = links_of(SNR_HZ), scheduler.start()
    scheduler.plan(state, links, EVERYBODY, np.zeros(4))
    for rate in (1e6, 4e6):
        state = scheduler.after(state, [Upload(3, 0.3, rate, None)])
    counts = {
        client: pieces_of(grant.bits)
        for client, grant in scheduler.plan(state, links, EVERYBODY, np.zeros(4)).grants.items()
    }
    assert counts[3] == expected_count(0.5 * (1 / 1e6 + 1 / 4e6), 0.5)
    assert counts[0] == expected_count(float(1 / rate_bps(1e6, 1e6, CELL.rate)), 0.5)


def test_a_fixed_ratio_keeps_its_budget_on_an_average_link():
    # Only the pieces are cut: the fixed part must count against the budget first.
    pieces = Pieces(800_000, np.full(8, 200_000.0), 1)
    scheduler = scheduler_of(pieces=pieces, control="client_ratio", latency_s=0.5)
    plan = scheduler.plan(scheduler.start(), links_of([1e7] * 4), EVERYBODY, np.zeros(4))
    for grant in plan.grants.values():
        assert pieces_of(grant.bits, pieces) > 1
        assert seconds_of(grant) <= 0.5 * (1 + 1e-9)


@pytest.mark.parametrize("allocation", ["equal", "min-max-delay"])
def test_without_control_grants_are_the_cells_own(allocation):
    cell = CellConfig(bandwidth_hz=4e6, allocation=allocation, deadline_s=2.0)
    scheduler = scheduler_of(cell, control="none")
    links, state = Cell(cell, 4, seed=1).links(0), scheduler.start()
    plan = scheduler.plan(state, links, EVERYBODY, np.full(4, 0.1))
    assert plan == allocate(links, EVERYBODY, 1.62e6, 220_000, 0.1, cell)
    assert scheduler.after(state, [Upload(0, 9.0, 1e6, torch.ones(8))]) is state


def test_a_deadline_holds_beside_the_budget():
    cell = CellConfig(bandwidth_hz=4e6, deadline_s=0.3, packet_error=0.0)
    scheduler = scheduler_of(cell, latency_s=5.0)
    plan = scheduler.plan(begun(scheduler, [0.0] * 4), links_of([1e7] * 4), EVERYBODY, np.zeros(4))
    assert len(plan.grants) == 4
    for grant in plan.grants.values():
        assert seconds_of(grant) <= 0.3 * (1 + 1e-9)


# ---- queues


def test_a_warm_queue_waits_for_those_who_cannot_send_all():
    scheduler = scheduler_of(latency_s=0.5, v=2.0)
    plan = scheduler.plan(scheduler.start(), links_of(SNR_HZ), EVERYBODY, np.zeros(4))
    own = 1.62e6 / rate_bps(1e6, SNR_HZ, CELL.rate)
    assert (own > 0.5).tolist() == [True, True, False, False]
    queue = [plan.notes[client]["queue"] for client in range(4)]
    # V tau where the usual client's seconds and the weights are one's own; theirs by proportion.
    expected = 2.0 * 0.5 * np.median(own) / own
    assert queue == pytest.approx([expected[0], expected[1], 0.0, 0.0])


def test_cold_queues_are_empty_and_so_are_warm_ones_with_time_for_everything():
    for options in ({"warm_queue": False}, {"latency_s": 100.0}):
        scheduler = scheduler_of(**options)
        plan = scheduler.plan(scheduler.start(), links_of(SNR_HZ), EVERYBODY, np.zeros(4))
        assert {plan.notes[client]["queue"] for client in range(4)} == {0.0}
        assert {pieces_of(grant.bits) for grant in plan.grants.values()} == {8}
        state = scheduler.after(scheduler.start(), [])
        assert state["round_queue"] == 0.0 and not state["queue"].any()


def test_the_state_after_a_round_by_hand():
    scheduler = scheduler_of(latency_s=0.5)
    state = begun(scheduler, [0.2, 0.1, 3.0, 4.0], 0.3)
    copy = {name: torch.as_tensor(value).clone() for name, value in state.items()}
    scheduler.plan(state, links_of(SNR_HZ), EVERYBODY, np.zeros(4))
    uploads = [
        Upload(0, 0.9, 2e6, torch.tensor([1.0, 3.0, 0, 0, 0, 0, 0, 4.0])),
        Upload(1, 0.1, 4e6, None),  # it was lost, but it took its time
        Upload(2, 0.5, 1e6, torch.zeros(8)),
    ]
    after = scheduler.after(state, uploads)
    assert after["queue"].tolist() == pytest.approx([0.6, 0.0, 3.0, 4.0])
    assert after["round_queue"] == pytest.approx(0.3 + 0.9 - 0.5)
    assert after["errors"][0].tolist() == [0.125, 0.375, 0, 0, 0, 0, 0, 0.5]
    assert after["errors"][1:].tolist() == [[0.125] * 8] * 3
    assert after["bit_seconds"].tolist() == pytest.approx([5e-7, 2.5e-7, 1e-6, 0.0])
    assert after["uploads"].tolist() == [1, 1, 1, 0]
    again = scheduler_of(latency_s=0.5).after(after, uploads[:1])
    assert again["queue"].tolist() == pytest.approx([1.0, 0.0, 3.0, 4.0])
    assert again["bit_seconds"][0] == pytest.approx(1e-6) and again["uploads"][0] == 2
    assert again["round_queue"] == pytest.approx(1.1)
    assert all(torch.equal(torch.as_tensor(state[name]), copy[name]) for name in copy)


def test_a_round_without_uploads_changes_no_queue():
    scheduler = scheduler_of(latency_s=0.5)
    state = begun(scheduler, [0.2, 0.1, 3.0, 4.0], 0.3)
    after = scheduler.after(state, [])
    assert after["queue"].tolist() == pytest.approx([0.2, 0.1, 3.0, 4.0])
    assert after["round_queue"] == pytest.approx(0.3)


def test_the_state_after_a_round_does_not_hang_on_another_plan():
    # Queues are the state's, which travels with the server's, not those of the last plan made.
    scheduler = scheduler_of(latency_s=0.5)
    links = links_of(SNR_HZ)
    state, other = begun(scheduler, [1.0] * 4, 1.0), begun(scheduler, [8.0] * 4, 8.0)
    scheduler.plan(state, links, EVERYBODY, np.zeros(4))
    scheduler.plan(other, links, EVERYBODY, np.zeros(4))
    after = scheduler.after(state, [Upload(0, 0.7, 1e6, None)])
    assert after["queue"].tolist() == pytest.approx([1.2, 1.0, 1.0, 1.0])


# ---- whom it refuses


def test_who_cannot_keep_the_budget_alone_in_the_band_is_skipped_with_a_reason():
    scheduler = scheduler_of(latency_s=0.5)
    links = links_of([1e7, 2e5, 1e8, 1e9])
    plan = scheduler.plan(scheduler.start(), links, EVERYBODY, np.array([0.1, 0.1, 0.6, 0.1]))
    assert list(plan.grants) == [0, 3] and list(plan.skipped) == [1, 2]
    # 220 kbit at what the whole band carries, and 0.6 s of computing before.
    alone = 0.1 + 220_000 / float(rate_bps(4e6, 2e5, CELL.rate))
    assert alone > 0.5 and f"{alone:.3g} s" in plan.skipped[1]
    assert "above the budget" in plan.skipped[2]


def test_a_budget_that_nobody_can_keep_is_refused_by_name():
    scheduler = scheduler_of(latency_s=0.5)
    compute = np.array([0.9, 0.6, 0.8])
    with pytest.raises(UserError, match=r"method\.latency_s: 0\.5 s .* Client 2 needs least"):
        scheduler.plan(scheduler.start(), links_of([1e9] * 4), np.array([0, 2, 3]), compute)


def test_one_faded_round_is_no_reason_to_refuse():
    scheduler = scheduler_of(latency_s=0.5)
    links = links_of([3e5] * 4, mean=[1e8] * 4)
    plan = scheduler.plan(scheduler.start(), links, EVERYBODY, np.zeros(4))
    assert len(plan.grants) == 4


# ---- over time


def lived(rounds=300, **options):
    """Mean delays [clients], mean slowest, and states of a run in a Rayleigh cell."""
    config = CellConfig(fading="rayleigh", path_loss="log-distance", bandwidth_hz=8e6)
    cell, rng = Cell(config, 8, seed=0), np.random.default_rng(0)
    pieces = Pieces(20_000, np.full(16, 4e5), 1)
    scheduler = scheduler_of(config, pieces, clients=8, asked=8, latency_s=0.6, **options)
    state, delays, queues = scheduler.start(), [], []
    for round in range(rounds):
        plan = scheduler.plan(state, cell.links(round), np.arange(8), np.full(8, 0.05))
        uploads = [
            Upload(
                grant.client,
                seconds_of(grant, 0.05),
                grant.rate_bps,
                torch.from_numpy(rng.dirichlet(np.full(16, 0.7))),
            )
            for grant in plan.grants.values()
        ]
        delays.append([upload.seconds for upload in uploads] + [0.6] * (8 - len(uploads)))
        queues.append(state["queue"].numpy())
        state = scheduler.after(state, uploads)
    delays = np.array(delays)
    return delays.mean(0), delays.max(1).mean(), np.array(queues[1:])


@pytest.mark.parametrize("v", [1.0, 3.0, 10.0])
def test_every_client_keeps_the_budget_in_the_long_run(v):
    mean, _, _ = lived(v=v)
    assert mean.max() <= 0.6 * (1 + 1 / math.sqrt(300))


@pytest.mark.parametrize("v", [1.0, 3.0, 10.0])
def test_rounds_keep_the_budget_in_the_long_run_if_they_are_what_counts(v):
    _, slowest, _ = lived(rounds=100, v=v, control="round")
    assert slowest <= 0.6 * (1 + 1 / math.sqrt(100))


def test_averages_of_clients_leave_the_rounds_slowest_above_the_budget():
    _, slowest, _ = lived(rounds=100)
    assert slowest > 1.1 * 0.6


def test_a_warm_queue_starts_near_where_a_cold_one_ends():
    warm, cold = (lived(v=3.0, warm_queue=each)[2] for each in (True, False))
    settled = cold[-100:].mean(0)
    waiting = settled > 0.1
    assert waiting.sum() >= 4
    ratio = warm[0][waiting] / settled[waiting]
    assert (ratio > 0.3).all() and (ratio < 3.0).all()


def test_later_rounds_of_hopeless_clients_are_skipped_not_refused():
    """Whoever is asked may be out of luck, while others have been served before."""
    scheduler = scheduler_of(latency_s=0.5)
    slow = np.full(4, 0.6)  # of computing alone
    with pytest.raises(UserError, match="any client needs of the 4 asked first"):
        scheduler.plan(scheduler.start(), links_of(SNR_HZ), EVERYBODY, slow)
    plan = scheduler.plan(begun(scheduler, [1.0] * 4, 1.0), links_of(SNR_HZ), EVERYBODY, slow)
    assert plan.grants == {} and len(plan.skipped) == 4


def test_who_is_always_in_outage_does_not_speak_for_the_budget():
    scheduler = scheduler_of(latency_s=0.5)
    sections = scheduler.start(), links_of([1.0, 1.0, 1.0, 2e7]), EVERYBODY, np.full(4, 0.6)
    with pytest.raises(UserError, match=r"needs of the 1 asked first .*Client 3 needs least"):
        scheduler.plan(*sections)
    with pytest.raises(UserError, match=r"half of them need 0\.6\d* s at most"):
        scheduler.plan(*sections)


def test_pieces_that_are_never_sent_get_no_bits():
    pieces = Pieces(PIECES.fixed_bits, PIECES.bits, 1, limit=2)
    scheduler = scheduler_of(pieces=pieces, latency_s=100.0)
    plan = scheduler.plan(scheduler.start(), links_of(SNR_HZ), EVERYBODY, np.zeros(4))
    assert {pieces_of(grant.bits, pieces) for grant in plan.grants.values()} == {2}
    assert pieces.whole == pieces.fixed_bits + np.sort(pieces.bits)[-2:].sum()


@pytest.mark.parametrize("fading", ["rayleigh", "rician"])
def test_who_cannot_keep_the_budget_is_judged_over_the_fading_not_by_the_mean_link(fading):
    """Deep fades take longer than good ones save: the mean of 1 / rate decides."""
    config = CellConfig(
        fading=fading, path_loss="log-distance", bandwidth_hz=4e6, rician_k_db=3, packet_error=0.0
    )
    cell = Cell(config, 40_000, seed=3)
    links = cell.links(0)
    mean = 2e7
    drawn = mean * links.gain / links.mean_gain
    sends = drawn >= 10 ** (config.rate.min_snr_db / 10) * config.rate.resource_block_hz
    smallest = 20_000 + 200_000.0
    seconds = float((smallest / rate_bps(4e6, drawn[sends], config.rate)).mean())
    on_average = float(smallest / rate_bps(4e6, mean, config.rate))
    assert seconds > 1.1 * on_average
    alone = links_of([mean] * 4, config)

    def skipped(budget):
        scheduler = scheduler_of(config, latency_s=budget)
        plan = scheduler.plan(begun(scheduler, [1.0] * 4, 1.0), alone, np.array([1]), np.zeros(1))
        return list(plan.skipped)

    assert skipped(0.85 * seconds) == [1]
    assert skipped(1.15 * seconds) == []


# ---- repeats


ERRING = CELL.model_copy(update={"packet_error": 0.2, "packet_bits": 1000})


@pytest.mark.parametrize("error", [0.1, 0.3, "waterfall"])
def test_a_limit_is_kept_with_the_repeats_of_packets(error):
    config = CELL.model_copy(update={"packet_error": error})
    scheduler = scheduler_of(config, control="limit", latency_s=0.5)
    links, compute = links_of(SNR_HZ, config), np.array([0.1, 0.0, 0.2, 0.1])
    plan = scheduler.plan(scheduler.start(), links, EVERYBODY, compute)
    seconds = {
        client: [
            compute[client] + Air(config, seed).uplink(int(grant.bits), links, grant).seconds
            for seed in range(200)
        ]
        for client, grant in plan.grants.items()
    }
    assert len(seconds) >= 3
    assert np.mean(np.array(list(seconds.values())) > 0.5) <= 0.005
    for client, taken in seconds.items():  # and not much is left of it
        assert np.mean(taken) > 0.7 * 0.5, client


@pytest.mark.parametrize("control", ["client_ratio", "common_ratio"])
@pytest.mark.parametrize("measured", [False, True])
def test_fixed_ratios_count_on_repeats(control, measured):
    """An upload may be 1 / (1 - q) times shorter; rates that were measured are without repeats."""
    snr_hz = np.array([1e6, 2e6, 4e6, 1e9])
    bit_seconds = 1.25 / rate_bps(1e6, snr_hz, CELL.rate)
    counts = [expected_count(each, 0.4) for each in bit_seconds]
    assert counts != [expected_count(each / 1.25, 0.4) for each in bit_seconds]
    scheduler = scheduler_of(ERRING, control=control, latency_s=0.4)
    links, state = links_of(snr_hz, ERRING), scheduler.start()
    if measured:
        state = begun(scheduler, [0.0] * 4)
        seen = [Upload(k, 0.3, 1.25 / bit_seconds[k], None) for k in range(4)]
        state = scheduler.after(state, seen)
    plan = scheduler.plan(state, links, EVERYBODY, np.zeros(4))
    expected = [min(counts)] * 4 if control == "common_ratio" else counts
    assert [pieces_of(grant.bits) for grant in plan.grants.values()] == expected


def test_the_round_control_means_time_with_repeats():
    """What takes 1 / (1 - q) times as long is planned like pieces of so much larger size."""
    larger = Pieces(25_000, np.full(8, 250_000.0), 1)
    links = links_of(SNR_HZ)
    for queue in (0.1, 1.0, 10.0):
        plans = []
        for cell, pieces in ((ERRING, PIECES), (CELL, larger)):
            scheduler = scheduler_of(cell, pieces, control="round")
            state = begun(scheduler, [0.0] * 4, queue)
            plan = scheduler.plan(state, links, EVERYBODY, np.full(4, 0.02))
            counts = [pieces_of(grant.bits, pieces) for grant in plan.grants.values()]
            plans.append((counts, [grant.bandwidth_hz for grant in plan.grants.values()]))
        assert plans[0][0] == plans[1][0]
        assert plans[0][1] == pytest.approx(plans[1][1])


def test_who_keeps_the_budget_only_without_repeats_is_skipped():
    links = links_of([1e7, 6e5, 1e8, 1e9])
    alone = 220_000 / float(rate_bps(4e6, 6e5, CELL.rate))
    for cell, skipped in ((CELL, []), (ERRING, [1])):
        scheduler = scheduler_of(cell, latency_s=1.1 * alone)
        plan = scheduler.plan(begun(scheduler, [1.0] * 4), links, EVERYBODY, np.zeros(4))
        assert list(plan.skipped) == skipped
    assert f"needs {1.25 * alone:.3g} s" in plan.skipped[1]


@pytest.mark.parametrize("bandwidth", ["square_root", "equal", "exact"])
def test_tsfa_weighs_longer_sending_by_a_longer_unit(bandwidth):
    """V is relative to a usual client's seconds for everything, which have the repeats as well."""
    errors = np.random.default_rng(0).dirichlet(np.ones(8), 4)
    plans = []
    for cell in (CELL, ERRING):
        scheduler = scheduler_of(cell, bandwidth=bandwidth)
        state = begun(scheduler, [0.6, 0.1, 0.5, 2.0], errors=errors)
        plan = scheduler.plan(state, links_of(SNR_HZ), EVERYBODY, np.zeros(4))
        plans.append([pieces_of(grant.bits) for grant in plan.grants.values()])
    assert plans[0] == plans[1]
