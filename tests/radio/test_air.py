import dataclasses
import math

import numpy as np
import pytest

from airtune.radio.air import Air
from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
from airtune.radio.grant import Grant
from airtune.radio.rate import rate_bps

ALL = np.arange(30)


def granted(config, links, client, bandwidth_hz=1e6, bits=math.inf):
    rate = float(rate_bps(bandwidth_hz, links.planned_snr_hz[client], config.rate))
    return Grant(client, bits, config.power_w, bandwidth_hz, rate)


def reachable(links):
    return int(np.argmax(links.snr_hz))


def test_uplink_charges_time_and_energy():
    config = CellConfig(packet_error=0.0)
    links = Cell(config, 30, seed=0).links(0)
    grant = granted(config, links, reachable(links))
    sent = Air(config, 0).uplink(10_000_000, links, grant)
    assert sent.arrived and sent.status == "delivered"
    assert sent.seconds == pytest.approx(1e7 / grant.rate_bps)
    assert sent.joules == pytest.approx(sent.seconds * (config.power_w + 0.1))
    assert sent.transmissions == 1184  # ceil(1e7 / 8448)


def test_errors_dilate_time_by_the_mean_number_of_tries():
    config = CellConfig(packet_error=0.2, retransmission_delay_s=0.0)
    links = Cell(config, 30, seed=0).links(0)
    grant = granted(config, links, reachable(links))
    sent = Air(config, 0).uplink(40_000_000, links, grant)
    assert sent.arrived
    assert sent.seconds == pytest.approx(1.25 * 4e7 / grant.rate_bps, rel=0.05)


def test_retransmissions_wait():
    prompt = CellConfig(packet_error=0.2, retransmission_delay_s=0.0)
    patient = CellConfig(packet_error=0.2, retransmission_delay_s=1.0)
    links = Cell(prompt, 30, seed=0).links(0)
    grant = granted(prompt, links, reachable(links))
    quick, slow = (Air(c, 0).uplink(10**6, links, grant) for c in (prompt, patient))
    passes = slow.seconds - quick.seconds
    assert passes == pytest.approx(round(passes)) and passes >= 1
    assert slow.joules - quick.joules == pytest.approx(0.1 * passes)


def test_a_message_is_lost_when_a_packet_runs_out_of_tries():
    config = CellConfig(packet_error=0.5, max_transmissions=2)
    links = Cell(config, 30, seed=0).links(0)
    sent = Air(config, 0).uplink(10**7, links, granted(config, links, reachable(links)))
    assert (sent.arrived, sent.status) == (False, "lost")
    assert sent.seconds > 0 and sent.joules > 0


def test_fading_below_the_margin_is_an_outage():
    config = CellConfig(csi="statistical", fading="rayleigh", fade_margin_db=3.0)
    links = Cell(config, 400, seed=1).links(0)
    air = Air(config, 1)
    faded = links.snr_hz < links.planned_snr_hz
    capped = rate_bps(1e6, links.planned_snr_hz, config.rate) > 5.5e6
    uplinks = [air.uplink(1000, links, granted(config, links, c)) for c in range(400)]
    out = np.array([sent.status == "outage" for sent in uplinks])
    assert np.array_equal(out[~capped], faded[~capped])
    assert all(sent.seconds > 0 and sent.joules > 0 for sent in uplinks)
    # Where the rate is capped the link has SNR to spare and a shallow fade does no harm.
    assert not (out & ~faded).any()


def test_outcomes_do_not_depend_on_the_order_of_calls():
    config = CellConfig(packet_error=0.3)
    links = Cell(config, 30, seed=0).links(2)
    grants = [granted(config, links, int(c)) for c in ALL]
    air = Air(config, 7)
    forward = [air.uplink(10**6, links, g) for g in grants]
    backward = [Air(config, 7).uplink(10**6, links, g) for g in reversed(grants)]
    assert forward == backward[::-1]
    later = dataclasses.replace(links, round=3)
    assert forward != [air.uplink(10**6, later, g) for g in grants]


def test_waterfall_uses_the_mean_snr_of_the_share():
    config = CellConfig(
        packet_error="waterfall", fading="none", path_loss="free-space", retransmission_delay_s=0.0
    )
    links = Cell(config, 1, seed=0).links(0)
    width = float(links.snr_hz[0])  # 0 dB: q = 1 - exp(-1.0053) = 0.634
    grant = granted(config, links, 0, bandwidth_hz=width)
    sent = Air(config, 0).uplink(8448 * 20_000, links, grant)
    assert sent.transmissions / 20_000 == pytest.approx(1 / (1 - 0.634), rel=0.03)


def test_zero_bits_and_zero_rate():
    config = CellConfig()
    links = Cell(config, 30, seed=0).links(0)
    grant = granted(config, links, reachable(links))
    nothing = Air(config, 0).uplink(0, links, grant)
    assert (nothing.arrived, nothing.seconds, nothing.joules) == (True, 0.0, 0.0)
    silent = dataclasses.replace(grant, rate_bps=0.0)
    assert Air(config, 0).uplink(8, links, silent).status == "outage"


def test_downlink_runs_at_the_worst_listener():
    config = CellConfig(downlink_bandwidth_hz=10e6)
    links = Cell(config, 30, seed=0).links(0)
    sent = Air(config, 0).downlink(8_000_000, links, ALL)
    rates = rate_bps(10e6, links.downlink_snr_hz, config.rate)
    assert sent.seconds == pytest.approx(8e6 / rates[sent.heard].min())
    assert sent.joules == pytest.approx(0.2 * sent.seconds)


def test_a_listener_out_of_reach_slows_nobody():
    config = CellConfig()
    links = Cell(config, 3, seed=0).links(0)
    links = dataclasses.replace(links, downlink_snr_hz=np.array([1e9, 1.0, 1e10]))
    air = Air(config, 0)
    sent = air.downlink(10**6, links, np.arange(3))
    assert sent.heard.tolist() == [True, False, True]
    assert sent.seconds == air.downlink(10**6, links, np.array([0, 2])).seconds
    nobody = air.downlink(10**6, links, np.array([1]))
    assert (nobody.seconds, nobody.heard.tolist()) == (0.0, [False])


@pytest.mark.parametrize("law", ["shannon", "mcs"])
def test_a_broadcast_is_planned_on_the_mean_where_the_server_knows_no_more(law):
    """Over Rayleigh fading 1 - exp(-margin) of the worst listeners miss it, and fewer others."""
    config = CellConfig(
        csi="statistical", fading="rayleigh", fade_margin_db=6.0, path_loss="free-space",
        layout="fixed", positions_m=((900.0, 0.0), (0.0, 900.0), (300.0, 0.0)), rate={"law": law},
        base_station_power_dbm=20.0,
    )  # fmt: skip
    cell, air = Cell(config, 3, seed=0), Air(config, 0)
    sent = [air.downlink(10**6, cell.links(round), np.arange(3)) for round in range(3000)]
    # Free space over 900 m at 3.5 GHz is 102.4 dB; noise at a client is -165 dBm/Hz.
    mean_snr_hz = 10 ** ((20.0 - 102.415 + 165.0) / 10)
    rate = float(rate_bps(20e6, mean_snr_hz * 10**-0.6, config.rate))
    (seconds,) = {each.seconds for each in sent}
    assert seconds == pytest.approx(1e6 / rate, rel=1e-3)
    missed = 1.0 - np.mean([each.heard for each in sent], axis=0)
    at_margin = 1.0 - np.exp(-(10**-0.6))
    if law == "shannon":
        assert missed[:2] == pytest.approx([at_margin] * 2, abs=4 * np.sqrt(0.22 * 0.78 / 3000))
        nearer = 1.0 - np.exp(-(10**-0.6) / 9.0)
        assert missed[2] == pytest.approx(nearer, abs=4 * np.sqrt(nearer / 3000))
    else:  # a step leaves some room below the planned SNR
        assert (missed[:2] <= at_margin + 0.03).all() and missed[0] > 5 * missed[2] > 0


def test_a_broadcast_nobody_hears_takes_its_time_if_the_server_cannot_know():
    config = CellConfig(csi="statistical")
    links = Cell(config, 3, seed=0).links(0)
    faded = dataclasses.replace(links, downlink_snr_hz=np.ones(3))
    sent = Air(config, 0).downlink(10**6, faded, np.arange(3))
    assert not sent.heard.any() and sent.seconds > 0.0 and sent.joules > 0.0
    hopeless = dataclasses.replace(links, planned_snr_hz=np.ones(3))
    assert Air(config, 0).downlink(10**6, hopeless, np.arange(3)).seconds == 0.0


def test_ideal_air_is_free():
    config = CellConfig.model_validate("ideal")
    links = Cell(config, 3, seed=0).links(0)
    air = Air(config, 0)
    down = air.downlink(10**9, links, np.arange(3))
    assert (down.seconds, down.joules, down.heard.all()) == (0.0, 0.0, True)
    up = air.uplink(10**9, links, Grant(1, math.inf, 0.2, 1e6, math.inf))
    assert (up.arrived, up.seconds, up.joules) == (True, 0.0, 0.0)
