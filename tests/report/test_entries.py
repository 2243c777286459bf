import math
from dataclasses import replace

import pandas as pd

from airtune.report.entries import entries_chart, sends_entries
from airtune.report.html import report_html
from airtune.report.maps import entries_map


def with_k(view, k=None, snr=None):
    uploads = view.uploads.copy()
    uploads["k"] = [float(i % 7 + 1) for i in range(len(uploads))] if k is None else k
    uploads["texts"] = 500.0
    uploads["retreat"] = ["fewer texts", *[math.nan] * (len(uploads) - 1)]
    if snr is not None:
        uploads["snr_db"] = snr
    return replace(view, uploads=uploads)


def test_a_run_whose_method_chose_k_shows_it_against_snr(make_view):
    view = with_k(make_view(rounds=4, clients=3), snr=[float(i) for i in range(12)])
    (points,) = entries_chart(view).data
    assert list(points.x) == [float(i) for i in range(12)]
    assert list(points.y) == [float(i % 7 + 1) for i in range(12)]
    assert "k = 1" in points.customdata[0] and "fewer texts" in points.customdata[0]
    assert "about 500 texts" in points.customdata[1] and "nan" not in points.customdata[1]
    (cells,) = entries_map(view).data
    assert cells.z.shape == (3, 4)
    assert "Entries of each prediction" in report_html([view])


def test_a_method_without_k_has_no_such_panel(make_view):
    view = make_view(rounds=2)
    assert not sends_entries(view)
    assert "Entries of each prediction" not in report_html([view])
    assert not sends_entries(replace(view, uploads=pd.DataFrame()))


def test_uploads_that_sent_nothing_are_no_points(make_view):
    view = with_k(make_view(rounds=1, clients=2), k=[math.nan, 3.0], snr=[1.0, 2.0])
    assert list(entries_chart(view).data[0].y) == [3.0]


def test_an_ideal_cell_has_no_snr_to_draw(make_view):
    view = with_k(make_view(rounds=1, clients=2), snr=[math.nan, math.nan])
    assert "No SNR" in entries_chart(view).layout.annotations[0].text
