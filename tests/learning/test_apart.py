"""Tables of those who hold a part: what is read, what is not, and what an error may name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from airtune.errors import UserError
from airtune.learning.config import ClientsConfig, DataConfig
from airtune.learning.data.apart import (
    OneShare,
    device_table,
    own_share,
    public_columns,
    server_table,
)
from airtune.learning.data.partition import partition


@pytest.fixture
def file(tmp_path):
    def write(name="rows.csv", **columns):
        pd.DataFrame(columns).to_csv(tmp_path / name, index=False)
        return str(tmp_path / name)

    return write


def test_a_server_opens_its_own_files_only(file):
    test = file("test.csv", text=["a", "b", "c"], label=["y", "x", "y"])
    table = server_table(DataConfig(train="nowhere.csv", test=test), 0)
    assert (table.task, table.classes) == ("classification", ["x", "y"])
    assert len(table.train) == 0 and table.test["_label"].tolist() == [1, 0, 1]


def test_a_server_needs_a_test_file_only_and_classes_may_be_more_than_it_has(file):
    test = file("test.csv", text=["a", "b"], label=["x", "y"])
    table = server_table(DataConfig(test=test, classes=["x", "y", "z"]), 0)
    assert table.classes == ["x", "y", "z"] and len(table.test) == 2 and len(table.train) == 0


def test_a_server_of_data_with_a_name_drops_the_training_rows():
    table = server_table(DataConfig(name="netops"), 0, needs_public=True)
    assert len(table.train) == 0
    assert len(table.test) > 100 and len(table.classes) > 5 and len(table.public) == 500
    assert set(public_columns(table)) == {"_prompt", "_text"}


@pytest.mark.parametrize(
    ("options", "needs", "sentence"),
    [
        ({"train": "x.csv"}, False, "data.test: the devices hold the training rows"),
        ({"train": "x.csv", "test": "t.csv"}, True, "data.public: the devices hold"),
        ({"train": "x.csv", "test": "t.csv", "public_rows": 3}, False, "data.public: the devices"),
    ],
)
def test_what_a_server_lacks_is_said(options, needs, sentence):
    with pytest.raises(UserError, match=sentence):
        server_table(DataConfig(**options), 0, needs)


def test_a_devices_rows_follow_the_servers_classes_and_those_to_test_come_last(file):
    config = DataConfig(train="own")
    files = file(text=["a", "b"], label=[7, 3]), file("own.csv", text=["c"], label=[3])
    table, first = device_table(config, files, "classification", ["3", "5", "7"], {})
    assert table.train["_label"].tolist() == [2, 0, 0] and first == 2
    assert table.train["_text"].tolist() == ["a", "b", "c"]
    assert len(table.test) == len(table.public) == 0
    public = {"_prompt": ["", ""], "_text": ["p", "q"]}
    table, _ = device_table(config, (files[0], None), "classification", ["3", "7"], public)
    assert table.public["_text"].tolist() == ["p", "q"]


def test_an_error_names_the_file_but_not_where_it_lies(file, tmp_path):
    path = file(text=["a"], label=["z"])
    with pytest.raises(UserError, match=r"row 1 of 'rows.csv' has label 'z'") as raised:
        device_table(DataConfig(train="own"), (path, None), "classification", ["x", "y"], {})
    assert str(tmp_path) not in str(raised.value)


def test_built_in_instructions_have_their_columns_at_devices_too(file):
    path = file(prompt=["do"], response=["done"])
    config = DataConfig(name="netops-instruct")
    table, _ = device_table(config, (path, None), "causal", [], {})
    assert table.train[["_prompt", "_text"]].to_numpy().tolist() == [["do\n", "done"]]


def test_a_device_holds_out_the_rows_that_it_would_in_one_process():
    sites = np.array(list("abbcabcbbaabcb"))
    frame = pd.DataFrame({"site": sites, "_text": "t", "_prompt": ""})
    config = ClientsConfig(count=3, partition="column", column="site", test_fraction=0.3)
    shares = partition(frame, config, 5)
    for client in range(3):
        mine = np.flatnonzero(sites == shares.name(client))
        own = own_share(len(mine), len(mine), 0.3, 5, client, "me")
        assert mine[own.train].tolist() == shares[client].train.tolist()
        assert mine[own.test].tolist() == shares[client].test.tolist()
        one = OneShare(own, client, 3)
        assert len(one) == 3 and one[client] is own
        with pytest.raises(IndexError):
            one[(client + 1) % 3]
