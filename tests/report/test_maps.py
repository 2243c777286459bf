from dataclasses import replace

import numpy as np
import pandas as pd

from airtune.report.maps import grant_map, snr_map, status_map
from airtune.report.statuses import STATUSES, losses


def with_uploads(view, rows):
    rest = {"reason": None, "bits": 0, "compute_seconds": 0.0, "seconds": 0.0}
    return replace(view, uploads=pd.DataFrame([rest | row for row in rows]))


def test_each_upload_has_its_cell_and_each_status_its_entry(make_view):
    view = with_uploads(
        make_view(rounds=2, clients=2),
        [
            {"round": 1, "client": 0, "status": "delivered"},
            {"round": 1, "client": 1, "status": "late", "reason": "<2 s"},
            {"round": 2, "client": 1, "status": "refused"},
        ],
    )
    panel = status_map(view)
    cells, *legend = panel.data
    np.testing.assert_array_equal(cells.z, [[0, np.nan], [1, 2]])
    assert [entry.name for entry in legend] == ["delivered", "T late", "R refused"]
    assert np.asarray(cells.text).tolist() == [["", ""], ["T", "R"]]
    assert np.asarray(cells.customdata)[1, 0] == "round 1, client 1<br>late: &lt;2 s"


def test_hover_says_bits_and_seconds(make_view):
    view = make_view(rounds=1, clients=1, limited=True)
    hover = np.asarray(status_map(view).data[0].customdata)[0, 0]
    assert "2.4 Mbit of" in hover
    assert "400 ms computing" in hover


def test_an_ideal_cell_says_that_the_radio_is_off(make_view):
    ideal = make_view(ideal=True, rounds=2)
    assert "No SNR" in snr_map(ideal).layout.annotations[0].text
    assert "Neither" in grant_map(ideal).layout.annotations[0].text


def test_a_round_in_which_nobody_transmits_does_not_mean_an_ideal_cell(make_view):
    view = with_uploads(make_view(rounds=1), [{"round": 1, "client": 0, "status": "skipped"}])
    assert "Nobody transmitted" in snr_map(view).layout.annotations[0].text


def test_bits_are_shown_where_they_are_limited_else_bandwidth(make_view):
    assert grant_map(make_view(rounds=2)).layout.title.text == "Granted bandwidth (MHz)"
    assert grant_map(make_view(rounds=2, limited=True)).layout.title.text == (
        "Granted payload (Mbit)"
    )


def test_a_hundred_clients_for_two_hundred_rounds(make_view):
    view = make_view(rounds=200, clients=100, evaluate_every=20)
    panel = status_map(view)
    assert np.asarray(panel.data[0].z).shape == (100, 200)
    assert panel.data[0].text is None
    assert panel.layout.height < 800


def test_losses_are_counted_by_frequency():
    statuses = ["late", "outage", "delivered", "outage", "lost"]
    assert losses(pd.DataFrame({"status": statuses})) == {"outage": 2, "lost": 1, "late": 1}
    assert losses(pd.DataFrame()) == {}


def test_statuses_differ_in_letter_and_colour():
    assert len({status.letter for status in STATUSES}) == len(STATUSES)
    assert len({status.colour for status in STATUSES}) == len(STATUSES)
