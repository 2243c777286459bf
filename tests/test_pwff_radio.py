"""Rounds in a cell without training cost what rounds with training do, but for the training."""

import json

import numpy as np
import pytest

from airtune.build import build, session
from airtune.experiment import Experiment
from airtune.federation import ledger
from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
from benchmarks.pwff import radio, radio_page
from benchmarks.pwff.systems import FULL, PFIT, gpt2


def test_rounds_cost_on_the_air_what_a_run_is_charged(small, tmp_path):
    values = {**radio.cell_at(3.0).model_dump(), "allocation": "equal", "packet_error": 0.1}
    experiment = Experiment(**small(cell=values, train={"rounds": 3}))
    parts = build(experiment)
    list(session(parts, experiment, tmp_path).rounds())
    rows = ledger.read(tmp_path / "ledger.jsonl")
    cell = Cell(CellConfig(**values), 5, 0)
    found = radio.radio_of_rounds(parts.method.dense_bits, cell, 0.1, 3)
    for number in (1, 2, 3):
        own = [row for row in rows if row["round"] == number]
        (cast,) = [row for row in own if row["row"] == "broadcast"]
        uploads = [row for row in own if row["row"] == "upload"]
        assert found["down"][number - 1] == pytest.approx(cast["seconds"])
        assert found["up"][number - 1] == pytest.approx(max(row["seconds"] for row in uploads))
        joules = cast["joules"] + sum(row["joules"] for row in uploads)
        assert found["joules"][number - 1] == pytest.approx(joules)
        there = sum(row["status"] == "delivered" for row in uploads)
        assert found["absent"][number - 1] == pytest.approx(1 - there / 5)


@pytest.mark.parametrize("snr_db", [0.0, 10.0])
def test_the_mean_snr_over_a_clients_part_of_the_band_is_the_one_named(snr_db):
    links = Cell(radio.cell_at(snr_db), 10, 0).links(1)
    assert 10 * np.log10(links.mean_snr_hz / 1e6) == pytest.approx(np.full(10, snr_db), abs=1e-3)
    powers = [
        Cell(radio.cell_at(snr_db), 10, 0).links(r).gain / links.mean_gain for r in range(300)
    ]
    assert np.mean(powers) == pytest.approx(1.0, abs=0.06)
    assert np.mean(np.array(powers) < 0.1) == pytest.approx(1 - np.exp(-0.1), abs=0.02)  # Rayleigh


def test_gpt2_is_counted():
    systems = {(each.model, each.title): each for each in gpt2()}
    d, layers = 768, 12
    block = 12 * d * d + 13 * d  # four maps of attention, eight of the network, biases, norms
    whole = layers * block + 2 * d + (50257 + 1024) * d
    active = whole - 1024 * d
    full, pfit = systems["GPT-2, texts", FULL], systems["GPT-2, answers", PFIT]
    assert full.bits == 32 * whole == 32 * 124_439_808
    assert pfit.bits == 32 * 2 * block == 32 * 14_175_744
    adapters = 2 * layers * (2 * 16 * d + 16 + d)
    assert systems["GPT-2, texts", "PFTT"].bits == 32 * adapters == 32 * 608_640
    lora = layers * 8 * (d + 3 * d)
    assert systems["GPT-2, texts", "both shared"].bits == 32 * (adapters + lora)
    assert systems["GPT-2, answers", "PFIT, LoRA in these blocks"].bits == 32 * lora // 6
    reached = active - 10 * block
    assert pfit.flops(pfit.early) == 7200 * (2 * active + 2 * reached + 4 * block + 4 * active)
    assert pfit.flops(pfit.whole) == 7200 * 8 * active
    assert full.flops(full.whole) == 800 * 6 * active


def row(system, snr_db, bits, radio, early=1.0, compute=4.0):
    return {"model": "M", "system": system, "snr_db": snr_db, "bits": bits, "model_parameters": 9,
            "down_s": 0.1 * radio, "up_s": 0.9 * radio, "radio_j": 2 * radio, "absent": 0.0,
            "compute_s": compute, "compute_early_s": early, "compute_j": compute,
            "compute_early_j": early}  # fmt: skip


def test_claims_say_what_the_rows_say():
    rows = [
        row("PFTT", 0.0, 10, 10.0), row("PFTT", 20.0, 10, 1.0),
        row("both shared", 0.0, 15, 15.0), row("both shared", 20.0, 15, 1.2, early=0.5),
        row(FULL, 0.0, 2000, 2000.0, 6.0, 6.0), row(FULL, 20.0, 2000, 200.0, 6.0, 6.0),
    ]  # fmt: skip
    found = {claim["id"]: claim for claim in radio_page.claims(rows, "command")}
    # 1 + 1 s against 0.5 + 1.2 s: with the early end, both shared is faster at 20 dB; in joules
    # it is 3 against 2.9.
    assert found["7-order-M"]["measured"] == [1, 2, 1, 2]
    assert found["7-order-M"]["holds"] is False
    assert found["7-bits-M-PFTT"]["measured"] == [0.005]
    assert found["7-compute-M"]["measured"] == pytest.approx([4 / 6, 4 / 6], abs=1e-5)
    assert found["7-compute-M"]["holds"] is True
    assert found["7-compute_early-M"]["measured"] == pytest.approx([1 / 6, 1 / 6], abs=1e-5)
    # Of (400 + 6) - (2.4 + 4) J, 397.6 are the radio's.
    assert found["7-radio-M"]["measured"][1] == pytest.approx(397.6 / 399.6, abs=1e-5)
    assert found["7-ratio-M"]["measured"] == pytest.approx([0.6667, 0.8333], abs=1e-4)
    assert found["7-ratio-M"]["holds"] is False
    cheap = [row("PFTT", 0.0, 10, 10.0, compute=3.9), rows[4]]
    (bound,) = [c for c in radio_page.claims(cheap, "") if c["id"] == "7-compute-M"]
    assert bound["holds"] is False


def test_the_page_is_that_of_the_results():
    results = json.loads((radio.HERE / "radio.json").read_text())
    assert (radio.HERE / "RADIO.md").read_text() == radio_page.page(results)
    assert results["claims"] == radio_page.claims(results["rows"], radio.COMMAND)
