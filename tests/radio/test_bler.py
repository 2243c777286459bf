"""Error rates by scheme and SNR, on a table of straight lines in place of the simulated one."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.radio import bler, mcs
from airtune.radio.air import Air
from airtune.radio.cell import Cell, granted_snr_hz
from airtune.radio.config import CellConfig
from airtune.radio.grant import Grant
from airtune.radio.packet_errors import packet_errors
from airtune.radio.rate import RateModel, occupied_hz, rate_bps
from airtune.scheduling.allocate import allocate
from airtune.scheduling.goodput import mean_tries

MCS = RateModel(law="mcs")


def straight(middle_db=-5.0):
    """Return a table: half a decibel per 0.1 of error rate around each scheme's own SNR.

    Scheme m is at 0.5 where the SNR is m - 5 dB, and one decibel later for each size below the
    largest: by hand, 0.5 + 0.2 (m - 5 + later - dB).
    """
    later = (bler.BLOCK_BITS.size - 1 - np.arange(bler.BLOCK_BITS.size))[:, None]
    middle = np.arange(bler.SCHEMES)[:, None, None] + middle_db + later
    return np.clip(0.5 + 0.2 * (middle - bler.SNR_DB), 0.0, 1.0)


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bler.write_table(bler.table_file(), straight(), "by hand")
    return bler.table_file()


@pytest.fixture
def no_sionna(monkeypatch):
    monkeypatch.delitem(sys.modules, "airtune.radio.bler_making", raising=False)
    for name in ("sionna", "sionna.sys"):
        monkeypatch.setitem(sys.modules, name, None)


def near(values):
    return pytest.approx(values, abs=1e-6)


# ---- reading


def test_rates_by_hand(table):
    curves = bler.bler_curves(8448)
    snr = 10 ** (np.array([4.0, 5.0, 5.25, 7.6]) / 10)
    # Scheme 10 is at 0.5 at 5 dB; 0.05 dB between entries are read off the line between them.
    assert curves.error(10, snr) == near([0.7, 0.5, 0.45, 0.0])
    assert curves.error(np.array([10, 12]), snr[:1]) == near([0.7, 1.0])
    # Below -5 dB nothing, however good the scheme; above 40 dB as at 40 dB.
    assert curves.error(0, [0.0, 1e-30, 10**-0.51, 1e9]) == near([1.0, 1.0, 1.0, 0.0])
    assert curves.error(np.zeros((3, 1), dtype=int), np.ones(4)).shape == (3, 4)


def test_the_size_next_to_a_packet_s_is_used(table):
    snr = 10**0.5
    found = [float(bler.bler_curves(bits).error(10, snr)) for bits in (2024, 2500, 1950, 1870)]
    assert found == near([0.5, 0.5, 0.7, 0.9])


def test_a_packet_of_several_code_blocks_fails_if_one_does(table):
    snr = 10**0.6
    one = float(bler.bler_curves(8448).error(10, snr))
    assert one == near(0.3)
    assert float(bler.bler_curves(8449).error(10, snr)) == near(1 - 0.7**2)
    assert float(bler.bler_curves(5 * 8448).error(10, snr)) == near(1 - 0.7**5)
    assert float(bler.bler_curves(5 * 8448).error(10, 0.1)) == 1.0


# ---- the file


def test_a_file_is_read_as_it_was_written_and_leaves_no_scratch(table):
    assert bler.read_table(table) == near(straight())
    assert [file.name for file in table.parent.iterdir()] == ["bler-pusch-table1-1.npz"]


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "text", "shape", "range", "rising"])
def test_damaged_files_are_no_tables(table, damage):
    content, rates = bytearray(table.read_bytes()), straight()
    if damage == "bit":
        content[len(content) // 2] ^= 0x10
    if damage in ("cut", "bit", "empty", "text"):
        text = {"cut": bytes(content[:-200]), "bit": bytes(content), "empty": b"", "text": b"1 2"}
        table.write_bytes(text[damage])
    else:
        wrong = {"shape": rates[:, :3], "range": 1.5 * rates, "rising": rates[..., ::-1]}
        bler.write_table(table, wrong[damage], "wrong")
    assert bler.read_table(table) is None


def test_without_table_and_sionna_a_sentence_says_what_to_install(tmp_path, monkeypatch, no_sionna):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"^cell\.packet_error: bler needs .*airtune\[sionna\]"):
        bler.bler_curves(8448)
    bler.table_file().parent.mkdir()
    bler.table_file().write_bytes(b"")
    with pytest.raises(UserError, match=r"^cell\.packet_error: '.*npz' is damaged, .*\[sionna\]"):
        bler.bler_curves(8448)


def test_a_cell_asks_for_its_table_at_once(tmp_path, monkeypatch, no_sionna):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = CellConfig(rate=MCS, packet_error="bler")
    with pytest.raises(UserError, match="airtune"):
        Cell(config, 3, seed=0)
    Cell(config.model_copy(update={"ideal": True}), 3, seed=0)


def test_a_table_that_is_there_needs_neither_sionna_nor_torch(table):
    code = (
        "import sys, airtune.radio.bler as b; b.bler_curves(8448).error(9, 3.0); "
        "assert not {'sionna', 'torch', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# ---- the description


def test_bler_without_schemes_is_refused():
    with pytest.raises(ValueError, match=r"packet_error: bler .* set rate\.law: mcs"):
        CellConfig(packet_error="bler")
    with pytest.raises(UserError, match=r"^cell.*packet_error: bler.*rate\.law"):
        Experiment(cell={"packet_error": "bler"})
    assert CellConfig(packet_error="bler", rate={"law": "mcs"}).packet_error == "bler"


# ---- links


def bler_cell(**keys):
    return CellConfig(rate=MCS, packet_error="bler", **keys)


def granted(config, links, client, bandwidth_hz=1e6):
    rate = float(rate_bps(bandwidth_hz, links.planned_snr_hz[client], config.rate))
    return Grant(client, np.inf, config.power_w, bandwidth_hz, rate)


def test_the_scheme_in_use_has_its_error_at_its_snr(table):
    # 12 dB over 1 MHz: MCS 20 on 0.891 MHz, at its threshold of 12.5 dB. The line has 0.5 at 15.
    one, law = packet_errors(bler_cell(), 1e6, 10**7.2, 10**7.2, 10**9)
    assert law == "none" and one == near(1.0)
    # Twice the power of what was planned with: 15.51 dB on the same width, 0.5 - 0.2 0.51.
    one, _ = packet_errors(bler_cell(), 1e6, 10**7.2, 10**7.2 * 2, 10**9)
    assert one == near(0.5 - 0.2 * (12.5 + 10 * np.log10(2) - 15))
    # 20 dB over 1 MHz: MCS 27 on all of it, 0.5 at 22 dB.
    one, _ = packet_errors(bler_cell(), 1e6, 1e8, 1e8, 10**9)
    assert one == near(0.9)
    copies, law = packet_errors(bler_cell(combining="chase"), [1e6], [1e8], [1e8], [10**9])
    # 20, 23.01, 24.77 dB: two copies fail in 0.5 - 0.2 1.01 of cases, three never.
    assert law == "copies" and copies.shape == (1, 3)
    assert copies[0] == near([0.9, 0.5 - 0.2 * (10 * np.log10(2) - 2), 0.0])


def test_plans_and_draws_agree_where_the_server_knows_the_link(table):
    config = bler_cell()
    links = Cell(config, 200, seed=0).links(0)
    share = np.full(200, 1e5)
    known = links.planned_snr_hz > 2e5
    errors, _ = packet_errors(
        config, share, links.planned_snr_hz, links.planned_snr_hz, links.mean_snr_hz
    )
    width = occupied_hz(share, links.planned_snr_hz, MCS)
    scheme = mcs.INDEX[np.argmin(
        np.abs(rate_bps(share, links.snr_hz, MCS)[:, None] - width[:, None] * mcs.EFFICIENCY), 1
    )]  # fmt: skip
    dB = 10 * np.log10(links.snr_hz / width)
    assert errors[known] == near(np.clip(0.5 + 0.2 * (scheme - 5 - dB), 0.0, 1.0)[known])
    sent = [granted_snr_hz(links, granted(config, links, c, 1e5), config) for c in range(200)]
    drawn = [packet_errors(config, 1e5, *snr_hz)[0] for snr_hz in sent]
    assert np.array_equal(np.array(drawn), errors)


def seen(config, snr_db, planned_db=20.0, bits=8448 * 500, bandwidth_hz=1e6):
    """Return the upload of one client whose SNR is another than the one planned with."""
    links = Cell(config, 1, seed=0).links(0)
    snr_hz = bandwidth_hz * 10 ** (np.array([snr_db, planned_db]) / 10)
    links = dataclasses.replace(links, snr_hz=snr_hz[:1], planned_snr_hz=snr_hz[1:])
    return Air(config, 3).uplink(bits, links, granted(config, links, 0, bandwidth_hz))


def test_a_fade_below_the_plan_costs_repeats_until_nothing_gets_through(table):
    # MCS 27 is planned with at 20 dB, 0.5 at 22 dB on the line, 0.98 at 19.6 and 1 at 19.5 dB.
    config = bler_cell(csi="statistical", retransmission_delay_s=0.0)
    for snr_db, q in ((24.0, 0.1), (22.0, 0.5), (20.0, 0.9)):
        sent = seen(config, snr_db)
        spread = np.sqrt(500 * q) / (1 - q)
        assert sent.arrived
        assert sent.transmissions == pytest.approx(500 / (1 - q), abs=5 * spread)
    down = seen(config, 19.4)
    assert (down.status, down.transmissions) == ("outage", 500)
    lost = seen(bler_cell(csi="statistical", max_transmissions=3), 20.0)
    assert lost.status == "lost"


def test_copies_carry_a_fade_that_single_packets_do_not(table):
    config = bler_cell(csi="statistical", combining="chase", retransmission_delay_s=0.0)
    # 15 dB: 4, 5, 6 ... copies have 21.02, 21.99, 22.78 dB. Failures: 1 for three copies, then
    # 0.5 - 0.2 (dB - 22), which is below 0 from ten copies (25 dB) on.
    copies = np.arange(1, 40)
    failures = np.clip(0.5 + 0.2 * (22 - 15 - 10 * np.log10(copies)), 0, 1)
    sent = seen(config, 15.0)
    assert sent.arrived
    assert sent.transmissions / 500 == pytest.approx(1 + failures.sum(), abs=0.4)
    # Two are at 18.01 dB, below the line, three at 19.77 dB, where 5 packets in 100 get through.
    assert seen(config.model_copy(update={"max_transmissions": 2}), 15.0).status == "outage"
    assert seen(config.model_copy(update={"max_transmissions": 3}), 15.0).status == "lost"
    # 16 copies are 12 dB: still nothing at 7 dB.
    assert seen(config, 7.0).status == "outage"


def test_acknowledged_copies_take_time_where_else_they_lose_the_message(table):
    config = bler_cell(csi="statistical", combining="chase", max_transmissions=3)
    assert seen(config, 15.0).status == "lost"
    # 15 dB: one and two copies never get through, three fail in 0.5 + 0.2 (22 - 19.77) of cases.
    sent = seen(config.model_copy(update={"link_layer": "acknowledged"}), 15.0)
    passed = 0.5 - 0.2 * (22 - 15 - 10 * np.log10(3))
    assert sent.arrived
    spread = 3 * np.sqrt(500 * (1 - passed)) / passed
    assert sent.transmissions == pytest.approx(500 * 3 / passed, abs=5 * spread)


# ---- blocks that fade differently


def test_spread_over_the_band_a_packet_has_the_effective_snr(table):
    config = bler_cell(delay_spread_ns=300.0, fading="rayleigh")
    links = Cell(config, 100, seed=0).links(0)
    clients = np.flatnonzero(links.snr_hz > 2e5)
    assert clients.size > 50
    for client in clients:
        planned, now, mean = granted_snr_hz(links, granted(config, links, client, 1e5), config)
        assert planned == now == links.snr_hz[client]
        assert mean == links.mean_snr_hz[client]
        error, _ = packet_errors(config, 1e5, planned, now, mean)
        width = float(occupied_hz(1e5, now, MCS))
        scheme = mcs.INDEX[
            np.argmin(np.abs(float(rate_bps(1e5, now, MCS)) / width - mcs.EFFICIENCY))
        ]
        assert error == near(np.clip(0.5 + 0.2 * (scheme - 5 - 10 * np.log10(now / width)), 0, 1))


def test_on_blocks_of_its_own_a_packet_is_at_the_threshold_of_its_scheme(table):
    bler.write_table(table, straight(-9.0), "by hand")
    config = bler_cell(
        delay_spread_ns=300.0, fading="rayleigh", allocation="best-blocks", bandwidth_hz=5e6
    )
    links = Cell(config, 8, seed=2).links(0)
    plan = allocate(links, np.arange(8), 1e6, 0.0, 0.0, config)
    below = 0
    for client, grant in plan.grants.items():
        snr_hz = granted_snr_hz(links, grant, config)
        assert snr_hz[0] == snr_hz[1] != links.snr_hz[client]
        error, _ = packet_errors(config, grant.bandwidth_hz, *snr_hz)
        blocks = links.block_snr_hz(np.array([client]))[0, list(grant.blocks)]
        if grant.rate_bps < 5.3 * grant.bandwidth_hz:
            # The scheme that carries as much with the least power, just so.
            below += 1
            needed = np.where(
                grant.rate_bps <= mcs.EFFICIENCY * grant.bandwidth_hz * (1 + 1e-9),
                mcs.THRESHOLD_SNR / mcs.EFFICIENCY,
                np.inf,
            )
            scheme, snr_db = mcs.INDEX[needed.argmin()], mcs.THRESHOLD_SNR[needed.argmin()]
            snr_db = 10 * np.log10(snr_db)
        else:
            scheme, snr_db = 27, 10 * np.log10(blocks.min() / grant.bandwidth_hz)
        assert error == near(np.clip(0.5 + 0.2 * (scheme - 9 - snr_db), 0, 1))
    assert below >= 3


@pytest.mark.parametrize("combining", ["none", "chase"])
@pytest.mark.parametrize("allocation", ["min-max-delay", "best-blocks"])
def test_what_is_promised_over_blocks_arrives_by_the_deadline(table, allocation, combining):
    bler.write_table(table, straight(-9.0), "by hand")
    config = bler_cell(
        delay_spread_ns=300.0, fading="rayleigh", allocation=allocation, bandwidth_hz=5e6,
        combining=combining, deadline_s=0.5, link_layer="acknowledged", max_transmissions=2,
    )  # fmt: skip
    cell, air, late, count = Cell(config, 20, seed=1), Air(config, 1), 0, 0
    for round in range(40):
        links = cell.links(round)
        plan = allocate(links, np.arange(20), 1e6, 1e4, 0.0, config)
        for grant in plan.grants.values():
            sent = air.uplink(int(grant.bits), links, grant)
            late += not sent.arrived or sent.seconds > config.deadline_s * (1 + 1e-9)
            count += 1
    assert count > 400
    assert late <= 0.002 * count + 5 * np.sqrt(0.002 * count)


@pytest.mark.parametrize("combining", ["none", "chase"])
def test_mean_tries_of_plans_are_those_that_are_seen(table, combining):
    bler.write_table(table, straight(-9.0), "by hand")
    layer = {"link_layer": "acknowledged", "max_transmissions": 2, "retransmission_delay_s": 0.0}
    config = bler_cell(combining=combining, **layer)
    links = Cell(config, 60, seed=0).links(0)
    clients = np.flatnonzero(links.planned_snr_hz > 2e5)
    known, mean = links.planned_snr_hz[clients], links.mean_snr_hz[clients]
    tries = mean_tries(known, mean, 1e5, config)
    assert tries.max() > 1.1
    for client, expected in zip(clients[:20], tries, strict=False):
        grant = granted(config, links, int(client), 1e5)
        sent = Air(config, 0).uplink(8448 * 2000, links, grant)
        assert sent.transmissions / 2000 == pytest.approx(float(expected), abs=0.08)
    # As many links as clients have rounds, as where budgets are judged.
    many = mean_tries(
        np.tile(known[:, None], 5), mean[:, None], np.full((known.size, 1), 1e5), config
    )
    assert many == pytest.approx(np.tile(tries[:, None], 5), rel=1e-12)


@pytest.mark.parametrize("combining", ["none", "chase"])
def test_what_a_plan_promises_arrives_by_the_deadline(table, combining):
    config = bler_cell(combining=combining, deadline_s=0.5, bandwidth_hz=5e6)
    cell, air, late, count = Cell(config, 20, seed=1), Air(config, 1), 0, 0
    for round in range(150):
        links = cell.links(round)
        plan = allocate(links, np.arange(20), 1e6, 1e4, 0.0, config)
        for grant in plan.grants.values():
            sent = air.uplink(int(grant.bits), links, grant)
            late += not sent.arrived or sent.seconds > config.deadline_s * (1 + 1e-9)
            count += 1
    # One in a thousand by each of two causes; the bound is five deviations away.
    assert count > 1000
    assert late <= 0.002 * count + 5 * np.sqrt(0.002 * count)
    assert {float(g.bits) for g in plan.grants.values()} != {0.0}
