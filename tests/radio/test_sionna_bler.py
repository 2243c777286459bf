"""The table of error rates and the built-in thresholds against Sionna's own look-ups."""

import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest

from airtune.radio import bler, mcs
from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
from airtune.radio.rate import RateModel

pytest.importorskip("sionna", reason="Sionna is not installed: pip install 'airtune[sionna]'")

SCHEMES = np.arange(3, 28)


@pytest.fixture(scope="module")
def phy():
    from sionna.sys import PHYAbstraction

    # One of its six tables: all together take seconds.
    own = files("sionna.sys") / "bler_tables" / "PUSCH_table1.json"
    return PHYAbstraction(load_bler_tables_from=[str(own)], device="cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Function that gives the curves of a packet size, of a table made in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield bler.bler_curves


def looked_up(phy, scheme, bits, dB):
    snr = (10 ** (np.asarray(dB) / 10)).astype(np.float32)
    return phy.get_bler(int(scheme), 1, 0, int(bits), snr).cpu().numpy().astype(float)


def test_the_table_has_sionna_s_rates(phy, cache):
    rng = np.random.default_rng(0)
    for bits in (24, 500, 1000, 2000, 8448):
        curves = cache(bits)
        for scheme in SCHEMES:
            dB = rng.integers(-50, 201, 60) / 10  # Sionna's own entries, of which it takes the next
            theirs = looked_up(phy, scheme, bits, dB)
            ours = curves.error(int(scheme), 10 ** (dB / 10))
            # Single precision; and simulated rates that rise with SNR by chance, which ours never
            # do: of 1,000 blocks or more, three deviations of half of them are 0.05.
            assert ours == pytest.approx(theirs, abs=0.05)
            assert np.mean(np.abs(ours - theirs) > 1e-4) <= 0.1


def test_between_sionna_s_entries_rates_lie_between_theirs(phy, cache):
    dB = np.arange(60, 70) / 10
    left, right = looked_up(phy, 14, 2000, dB), looked_up(phy, 14, 2000, dB + 0.1)
    ours = cache(2000).error(14, 10 ** ((dB + 0.05) / 10))
    assert (ours < left).all() and (ours > right).all()


def test_schemes_without_curves_are_never_decoded(phy, cache):
    assert np.isinf(looked_up(phy, 2, 2000, [10.0])).all()
    assert cache(2000).error([0, 1, 2], 1e3).tolist() == [1.0, 1.0, 1.0]


def test_sizes_above_those_simulated_are_clamped(phy, cache):
    dB = np.linspace(-3, 19, 40)
    for scheme in (5, 14, 27):
        assert np.array_equal(looked_up(phy, scheme, 2000, dB), looked_up(phy, scheme, 8448, dB))
    assert np.array_equal(cache(2000).rates, cache(8448).rates)


def test_beyond_what_was_simulated_rates_go_on_falling(phy, cache):
    # Scheme 27 has 0.0037 at 20 dB, where its curve ends, and Sionna repeats that at 30 dB.
    ends = looked_up(phy, 27, 2000, [20.0, 30.0])
    assert ends[1] == ends[0] > 1e-3
    ours = cache(2000).error(27, 10 ** (np.array([19.0, 20.0, 21.0, 30.0]) / 10))
    assert ours[1] == pytest.approx(ends[0], rel=1e-4)
    # A straight line in dB and logarithm: from 20 to 21 dB the factor of 19 to 20 dB.
    assert ours[2] / ours[1] == pytest.approx(ours[1] / ours[0], rel=1e-3)
    assert ours[3] < 1e-12


def test_the_thresholds_are_those_of_a_transport_block_of_five_resource_blocks(phy):
    import torch

    dB, schemes = np.arange(-20, 120) * 0.25, mcs.INDEX[::-1]
    snr = np.repeat(10 ** (dB[:, None] / 10), schemes.size, 1).astype(np.float32)
    index = torch.tensor(np.broadcast_to(schemes, snr.shape).astype(np.int32))
    # 12 subcarriers, 14 symbols.
    elements = torch.full(index.shape, 5 * 12 * 14, dtype=torch.int32)
    *_, error, _ = phy(
        index, sinr_eff=torch.tensor(snr), num_allocated_re=elements,
        mcs_table_index=1, mcs_category=0,
    )  # fmt: skip
    first = dB[np.argmax(error.cpu().numpy() <= 0.1, axis=0)]
    assert first == pytest.approx(10 * np.log10(mcs.THRESHOLD_SNR[::-1]), abs=1e-9)


def test_long_packets_keep_the_errors_that_thresholds_were_chosen_for(cache):
    at = cache(8448).error(mcs.INDEX, mcs.THRESHOLD_SNR)
    assert (at > 0.005).all() and (at <= 0.1).all()
    # Short codes do not: half of 24 bits are lost at some thresholds.
    short = cache(24).error(mcs.INDEX, mcs.THRESHOLD_SNR)
    assert (short > 0.03).all() and 0.4 < short.max() < 0.5


def test_who_makes_the_table_and_who_reads_it_see_the_same(cache):
    made, lies = cache(2000).rates, bler.table_file()
    assert np.array_equal(bler.read_table(lies)[:, 20], made)
    assert lies.stat().st_size < 300_000
    code = (
        "import sys, numpy, airtune.radio.bler as b; r = b.bler_curves(2000).rates; "
        "assert 'torch' not in sys.modules; print(repr(float(r.sum())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stdout.strip() == repr(float(made.sum()))


def test_making_the_table_leaves_every_draw_as_it_is(tmp_path, monkeypatch):
    config = CellConfig(rate=RateModel(law="mcs"), packet_error="bler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one = Cell(config, 50, seed=3).links(4).snr_hz
    assert bler.table_file().exists()
    plain = Cell(CellConfig(rate=RateModel(law="mcs")), 50, seed=3).links(4).snr_hz
    assert np.array_equal(one, plain)
