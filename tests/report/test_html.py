import re
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from airtune.report.html import report_html, write_report

HOSTILE = """<b>"A" & 'B'</b></script><script>throw 1</script>"""


class Page(HTMLParser):
    """Collects tags, attributes and the text that a reader sees."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.seen = [], [], []
        self._hidden = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._hidden = False

    def handle_data(self, data):
        if not self._hidden:
            self.seen.append(data)


def own_part(html):
    """The page without the library that it carries."""
    assert html.count(get_plotlyjs()) == 1
    return html.replace(get_plotlyjs(), "")


def test_one_run_has_cards_charts_maps_and_its_configuration(make_view):
    page = Page(report_html([make_view("demo", rounds=3)]))
    text = " ".join(page.seen)
    assert "demo" in text
    assert "Personal accuracy" in text
    assert "method: {name: fedavg}" in text
    assert "table" not in page.tags
    assert len([1 for _, key, value in page.attributes if (key, value) == ("class", "panel")]) == 5


def test_several_runs_have_a_table_and_a_section_each(make_view):
    views = [make_view(name, rounds=3, seed=i) for i, name in enumerate(["one", "two"])]
    page = Page(report_html(views, target=0.99))
    text = " ".join(page.seen)
    assert page.tags.count("table") == 1
    assert page.tags.count("details") == 4
    assert "Target: 99.0 % accuracy (as asked)" in text
    # Each run has two cells of the table and one of its cards.
    assert text.count("not reached") == 6


def test_nothing_is_loaded_from_elsewhere(make_view):
    html = own_part(report_html([make_view(rounds=2), make_view(rounds=2)]))
    loading = ("src", "href", "srcset", "data", "action", "poster")
    assert [each for each in Page(html).attributes if each[1] in loading] == []
    assert "@import" not in html
    assert "url(" not in html
    # Plotly's own setting, an address that is opened only for a button which the page hides.
    assert (
        re.findall(r"https?://[^\"']*", html.replace('"plotlyServerURL": "https://plot.ly"', ""))
        == []
    )


def test_names_are_text_whatever_they_contain(make_view):
    hostile = replace(make_view(HOSTILE, rounds=2), experiment=HOSTILE)
    for views in ([hostile], [hostile, make_view(rounds=2)]):
        html = report_html(views)
        assert "<script>throw" not in html
        page = Page(html)
        assert "b" not in page.tags
        assert HOSTILE in "".join(page.seen)


def test_the_same_runs_give_the_same_bytes(make_view, tmp_path):
    for name in ("a", "b"):
        write_report([make_view(rounds=2)], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "b"]


def test_a_run_that_was_never_asked_for_anything(make_view):
    view = replace(make_view(rounds=0), uploads=pd.DataFrame())
    assert "Nobody was asked to upload." in report_html([view])


@pytest.mark.slow
def test_a_browser_draws_every_figure_without_an_error(make_view, tmp_path, browse):
    views = [
        make_view(HOSTILE, rounds=3, causal=True),
        make_view("ideal", ideal=True, rounds=3),
        make_view("limited", limited=True, rounds=3, payload_bits=1e8),
    ]
    write_report(views, tmp_path / "report.html")
    dom, errors = browse(tmp_path / "report.html")
    assert errors == []
    figures = len(re.findall(r'class="plotly-graph-div', dom))
    assert figures == 6 + 3 * 3
    drawn = re.findall(r'<svg class="main-svg"[^>]*width="(\d+)', dom)
    assert len(drawn) >= figures


@pytest.mark.slow
def test_the_browser_check_sees_a_thrown_error(make_view, tmp_path, browse):
    page = tmp_path / "broken.html"
    broken = report_html([make_view(rounds=1)]).replace(
        "</body>", "<script>throw 1</script></body>"
    )
    page.write_text(broken, encoding="utf-8")
    _, errors = browse(page)
    assert len(errors) == 1
    assert "Uncaught 1" in errors[0]
