import ast
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import airtune.radio
from airtune.errors import UserError
from airtune.radio.air import Air
from airtune.radio.cell import Cell, likely_snr_hz
from airtune.radio.config import CellConfig
from airtune.radio.rate import RateModel, rate_bps, snr_for_rate_hz
from airtune.radio.trace import read_trace
from airtune.scheduling.allocate import allocate

CLIENTS, ROUNDS = 4, 5
SHARE_HZ = 20e6 / CLIENTS


def frame(column, values, first=1):
    rounds, clients = np.indices(values.shape)
    table = pd.DataFrame(
        {"round": rounds.ravel() + first, "client": clients.ravel(), column: values.ravel()}
    )
    return table.sample(frac=1.0, random_state=3)


def written(folder, text):
    path = folder / "links.csv"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("first", [0, 1, 17])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_snrs_are_replayed_to_the_digit_and_begun_anew(tmp_path, kind, first):
    snr_db = np.random.default_rng(0).uniform(-20, 30, (ROUNDS, CLIENTS))
    path, table = str(tmp_path / f"links.{kind}"), frame("snr_db", snr_db, first)
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    cell = Cell(CellConfig(trace=path), CLIENTS, seed=0)
    for round in (1, 2, 5, 6, 13):
        links = cell.links(round)
        played = 10 * np.log10(links.snr_hz / SHARE_HZ)
        assert played == pytest.approx(snr_db[(round - 1) % ROUNDS], abs=1e-12)
        assert np.array_equal(links.planned_snr_hz, links.snr_hz)
        # One gain up and down: 10 dB more power, 4 dB more noise in a client.
        assert links.downlink_snr_hz == pytest.approx(links.snr_hz * 10**0.6)
        assert links.mean_snr_hz / SHARE_HZ == pytest.approx(np.mean(10 ** (snr_db / 10), axis=0))


def test_rates_are_replayed_to_the_digit(tmp_path):
    model = CellConfig().rate
    slowest = float(rate_bps(SHARE_HZ, 10**-0.5 * SHARE_HZ, model))
    rates = np.random.default_rng(1).uniform(0, 5.55 * SHARE_HZ, (ROUNDS, CLIENTS))
    rates[0] = [0.0, 0.3 * slowest, slowest, 5.55 * SHARE_HZ]
    path = str(tmp_path / "rates.csv")
    frame("rate_bps", rates).to_csv(path, index=False)
    cell = Cell(CellConfig(trace=path), CLIENTS, seed=0)
    for round in (1, 4, 6):
        links = cell.links(round)
        played = rate_bps(SHARE_HZ, links.snr_hz, model)
        assert played == pytest.approx(rates[(round - 1) % ROUNDS], rel=1e-12, abs=0)
    rates[3, 2] = 5.6 * SHARE_HZ
    frame("rate_bps", rates).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"rates.csv' has 2.8e\+07 bit/s for client 2 .* number 4,"):
        Cell(CellConfig(trace=path), CLIENTS, seed=0)


@pytest.mark.parametrize(
    "model",
    [
        RateModel(),
        RateModel(gap_db=0.0, max_efficiency=100.0, min_snr_db=-30.0),
        RateModel(max_efficiency=0.5, min_snr_db=10.0),
    ],
)
def test_the_rates_inverse_is_the_least_that_carries_it(model):
    rng = np.random.default_rng(2)
    width = 10 ** rng.uniform(5, 8, 300)
    rate = width * model.max_efficiency * rng.uniform(0, 1, 300)
    rate[:3] = [0.0, width[1] * model.max_efficiency, 1e-9]
    snr_hz = snr_for_rate_hz(width, rate, model)
    assert rate_bps(width, snr_hz, model) == pytest.approx(rate, rel=1e-9)
    assert (rate_bps(width, snr_hz * (1 - 1e-6), model)[1:] < rate[1:]).all()
    assert np.isinf(snr_for_rate_hz(1e6, 1.01e6 * model.max_efficiency, model))


def test_more_clients_than_the_run_needs_are_left_out(tmp_path):
    snr_db = np.arange(12.0).reshape(3, 4)
    path = str(tmp_path / "links.csv")
    frame("snr_db", snr_db).to_csv(path, index=False)
    assert read_trace(path, 2).values.tolist() == snr_db[:, :2].tolist()


def test_likely_links_are_those_of_the_trace(tmp_path):
    snr_db = np.random.default_rng(4).uniform(0, 20, (ROUNDS, CLIENTS))
    path = str(tmp_path / "links.csv")
    frame("snr_db", snr_db).to_csv(path, index=False)
    config = CellConfig(trace=path)
    found = likely_snr_hz(config, Cell(config, CLIENTS, 0).links(1), np.array([3, 1]), 2 * ROUNDS)
    expected = np.repeat(np.sort(10 ** (snr_db[:, [3, 1]] / 10), axis=0), 2, axis=0).T * SHARE_HZ
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("csi", ["perfect", "statistical"])
def test_a_dead_link_is_skipped_where_known_and_an_outage_where_not(tmp_path, csi):
    rates = np.full((2, 3), 1e6)
    rates[0, 1] = 0.0
    path = str(tmp_path / "rates.csv")
    frame("rate_bps", rates).to_csv(path, index=False)
    config = CellConfig(trace=path, csi=csi, fade_margin_db=0.0)
    links, air = Cell(config, 3, seed=0).links(1), Air(config, seed=0)
    plan = allocate(links, [0, 1, 2], 1e6, 1e3, 0.0, config)
    if csi == "perfect":
        assert plan.skipped == {1: "outage"}
    else:
        assert air.uplink(100_000, links, plan.grants[1]).status == "outage"


ROWS = "round,client,snr_db\n1,0,3\n1,1,4\n2,0,5\n2,1,6\n"


@pytest.mark.parametrize(
    "text, clients, sentence",
    [
        (ROWS, 3, r"links.csv' ends with client 1 \(counted from 0\), and there are 3 clients"),
        (ROWS.replace("2,0,5\n", ""), 2, "no row for client 0 in round 2; row 3 is the last"),
        (ROWS.replace("2,1,6\n", ""), 2, "no row for client 1 in round 2; row 4 is the last"),
        (ROWS.replace("1,0,3\n", ""), 2, r"no row for client 0 in round 1\."),
        (ROWS.replace("2,", "3,"), 2, "no row for client 0 in round 2; row 3 is the last"),
        (ROWS + "1,1,9\n", 2, "links.csv', row 6: client 1 has round 1 twice"),
        (ROWS.replace("1,4", "1,x"), 2, "row 3: snr_db is x, and must be a number"),
        (ROWS.replace("1,4", "1,"), 2, "row 3: snr_db is nan, and must be a number"),
        (ROWS.replace("1,4", "1,inf"), 2, "row 3: snr_db is inf, and must be a number"),
        (ROWS.replace("1,4", "1,4000"), 2, "row 3: snr_db is 4000, and must be from -200 to 200"),
        (ROWS.replace("2,0,5", "2,0.5,5"), 2, "row 4: client is 0.5, and must be a whole number"),
        (ROWS.replace("2,0,5", "\n2,0,5"), 2, "row 4: round is nan"),
        (ROWS.replace("snr_db", "rate_bps").replace("0,5", "0,-5"), 2, "row 4: rate_bps is -5"),
        (ROWS.replace("snr_db", "snr"), 2, "has in its first row the columns round, client, snr;"),
        (ROWS.replace("round", "time"), 2, "columns time, client, snr_db; it needs round, client"),
        ("round,client,snr_db,rate_bps\n1,0,1,1\n", 1, "one of snr_db, rate_bps, and no other"),
        ("round,client,snr_db\n", 1, "links.csv' has no rows"),
        ("round,client,snr_db\n\n\n", 1, "links.csv' has no rows"),
        ("", 1, "links.csv' cannot be read as csv"),
        (ROWS.replace("1,0,3", "1,0,3,7"), 2, "has rows of 4 fields, and 3 names in its first row"),
        ("round,client,snr_db\n9,1,0,7\n9,1,1,9\n", 2, "has rows of 4 fields, and 3 names"),
        ("round,client,snr_db\n1,0,5,7,8\n1,1,5\n", 2, "has rows of 5 fields, and 3 names"),
        (ROWS.replace("2,0,5", "2,0,5,7"), 2, "links.csv' cannot be read as csv"),
    ],
)
def test_what_is_wrong_in_a_trace_is_said_with_its_file_and_row(tmp_path, text, clients, sentence):
    path = written(tmp_path, text)
    with pytest.raises(UserError, match=sentence) as caught:
        Cell(CellConfig(trace=path), clients, seed=0)
    assert str(caught.value).startswith("cell.trace: '") and str(caught.value).endswith(".")


def test_blank_lines_may_end_a_trace(tmp_path):
    path = written(tmp_path, ROWS + "\n\n")
    assert read_trace(path, 2).values.tolist() == [[3.0, 4.0], [5.0, 6.0]]
    with pytest.raises(UserError, match="row 6: round is nan"):
        read_trace(written(tmp_path, ROWS + "\n3,0,1\n"), 2)


@pytest.mark.parametrize(
    "law, named, highest",
    [
        ("shannon", r"cell\.rate\.max_efficiency allows", 5.55e6),
        ("mcs", r"cell\.rate\.law mcs allows at best", 910 / 1024 * 6e6),
    ],
)
def test_a_rate_that_is_too_high_is_refused_by_the_law_that_says_so(tmp_path, law, named, highest):
    config = {"bandwidth_hz": 1e6, "rate": {"law": law}}
    path = written(tmp_path, f"round,client,rate_bps\n1,0,{highest}\n2,0,1e5\n")
    links = Cell(CellConfig(trace=path, **config), 1, seed=0).links(1)
    assert rate_bps(1e6, links.snr_hz[0], CellConfig(**config).rate) == pytest.approx(highest)
    (tmp_path / "more").mkdir()
    path = written(tmp_path / "more", f"round,client,rate_bps\n1,0,{1.01 * highest}\n")
    with pytest.raises(UserError, match=f"above the {highest:.6g}".replace("+", r"\+")) as said:
        Cell(CellConfig(trace=path, **config), 1, seed=0)
    assert re.search(named, str(said.value))


@pytest.mark.parametrize(
    "law, lowest",
    [
        # A block of 180 kHz at -5 dB with a gap of 2 dB, and in the lowest scheme.
        ("shannon", 180e3 * np.log2(1 + 10**-0.7)),
        ("mcs", 180e3 * 2 * 251 / 1024),
    ],
)
def test_a_rate_is_served_or_refused_and_none_at_all_is_an_outage(tmp_path, law, lowest):
    """None of them becomes an outage in silence."""
    config = {"bandwidth_hz": 20e6, "rate": {"law": law}, "allocation": "equal"}
    rows = "round,client,rate_bps\n1,0,{}\n1,1,0\n"
    config = CellConfig(trace=written(tmp_path, rows.format(repr(float(lowest)))), **config)
    plan = allocate(Cell(config, 2, seed=0).links(1), [0, 1], 1e6, 1e3, 0.0, config)
    assert plan.skipped == {1: "outage"}
    (tmp_path / "less").mkdir()
    path = written(tmp_path / "less", rows.format(0.99 * lowest))
    config = config.model_copy(update={"trace": path})
    with pytest.raises(UserError, match=r"for client 0 in its round number 1, below the .* outage"):
        Cell(config, 2, seed=0)
    narrow = config.rate.model_copy(update={"resource_block_hz": 100e3})
    assert Cell(config.model_copy(update={"rate": narrow}), 2, seed=0).links(1).snr_hz[0] > 0


def test_a_trace_that_is_no_table_is_said(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        read_trace(str(tmp_path / "none.csv"), 1)
    for name, sentence in (("t.txt", "neither .csv nor .parquet"), ("t.parquet", "as parquet")):
        (tmp_path / name).write_text("round")
        with pytest.raises(UserError, match=sentence):
            read_trace(str(tmp_path / name), 1)


def test_radio_imports_no_pandas_until_a_trace_is_read():
    for file in Path(airtune.radio.__file__).parent.glob("*.py"):
        top = ast.parse(file.read_text()).body
        names = [alias.name for node in top if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module for node in top if isinstance(node, ast.ImportFrom)]
        assert not any(name.startswith("pandas") for name in names), file.name
