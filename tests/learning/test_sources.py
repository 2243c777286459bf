"""Tables from files: what is accepted, and the sentence for what is not."""

from __future__ import annotations

import gzip
import json

import pandas as pd
import pytest

from airtune.errors import UserError
from airtune.learning.config import DataConfig
from airtune.learning.data.sources import load_table

ROWS = pd.DataFrame(
    {"text": ["NA", "two", "None", "four"], "label": [0, 1, 0, 1], "who": ["a", "b", "a", "b"]}
)


def load(**keys):
    return load_table(DataConfig(**keys), 0)


@pytest.fixture
def files(tmp_path):
    """The same rows as CSV, gzipped CSV, JSONL, gzipped JSONL and Parquet."""
    paths = {kind: tmp_path / f"rows.{kind}" for kind in ("csv", "jsonl", "parquet")}
    ROWS.to_csv(paths["csv"], index=False)
    ROWS.to_json(paths["jsonl"], orient="records", lines=True)
    ROWS.to_parquet(paths["parquet"])
    for kind in ("csv", "jsonl", "parquet"):
        paths[f"{kind}.gz"] = tmp_path / f"rows.{kind}.gz"
        paths[f"{kind}.gz"].write_bytes(gzip.compress(paths[kind].read_bytes()))
    return paths


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet", "parquet.gz"])
def test_every_kind_of_file_gives_the_same_rows(files, kind):
    table = load(train=str(files[kind]), test=str(files[kind]))
    assert table.task == "classification"
    assert table.train["_text"].tolist() == [
        "NA",
        "two",
        "None",
        "four",
    ]  # text, not missing values
    assert table.train["_label"].tolist() == [0, 1, 0, 1]
    assert table.train["who"].tolist() == ["a", "b", "a", "b"]
    assert table.classes == ["0", "1"]


def test_named_labels_are_numbered_in_order_of_their_names(tmp_path):
    path = tmp_path / "x.csv"
    pd.DataFrame({"q": ["x", "y", "z"], "c": ["pear", "apple", "pear"]}).to_csv(path, index=False)
    table = load(train=str(path), test=str(path), text="q", label="c")
    assert table.classes == ["apple", "pear"]
    assert table.train["_label"].tolist() == [1, 0, 1]


def test_without_a_test_file_a_tenth_is_held_out(tmp_path):
    path = tmp_path / "x.csv"
    pd.DataFrame({"text": [f"t{i}" for i in range(50)], "label": [0, 1] * 25}).to_csv(path)
    table = load(train=str(path))
    assert len(table.train) == 45
    assert not set(table.train["_text"]) & set(table.test["_text"])


def test_instructions_join_prompt_columns_and_leave_out_empty_ones(tmp_path):
    path = tmp_path / "x.jsonl"
    rows = [{"i": "Add", "c": "1+1", "o": "2"}, {"i": "Greet", "c": "", "o": "Hi"}]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    table = load(train=str(path), test=str(path), prompt=["i", "c"], response="o")
    assert table.task == "causal"
    assert table.train["_prompt"].tolist() == ["Add\n1+1\n", "Greet\n"]


def test_text_alone_is_language_modelling(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "once"}\n{"text": "upon"}\n')
    assert load(train=str(path), test=str(path)).task == "causal"


@pytest.mark.parametrize(
    ("content", "keys", "message"),
    [
        ("text,label\na,0\nb,1\n", {"text": "txt"}, "no column 'txt'; did you mean 'text'"),
        ("text,label\na,0\nb,1\n", {"label": "lable"}, "did you mean 'label'"),
        ("text,label\na,0\nb,9\n", {"classes": 5}, "label '9', which is out of range: 5 classes"),
        ("text,label\na,0\nb,-1\n", {"classes": 5}, "label '-1', which is out of range"),
        ("text,label\na,x\nb,y\n", {"classes": ["x", "z"]}, "label 'y', .* 2 classes, x to z"),
        ("text,label\na,0\nb,0\n", {}, "one value only"),
        ("text,label\n", {}, "has no rows"),
        ("", {}, "cannot be read as csv"),
        ("text,label\n1,0\n2,1\n", {}, "holds no text"),
        ("text,label\na,0\nb,\n", {}, "row 2 .* has no label"),
        ("p,r\na,b\nc, \n", {"prompt": "p", "response": "r"}, "row 2 .* empty response"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, content, keys, message):
    path = tmp_path / "x.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        load(train=str(path), test=str(path), **keys)


def test_classes_that_are_named_are_those_and_in_that_order(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,label\na,2\nb,10\n")
    table = load(train=str(path), test=str(path), classes=["10", "1", "2"])
    assert table.classes == ["10", "1", "2"] and table.train["_label"].tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"classes are two names or more, each once"):
        DataConfig(classes=["a", "a"])


def test_a_test_file_alone_is_not_enough(tmp_path):
    with pytest.raises(UserError, match=r"data\.train: data\.test names a file and it does not"):
        load(test=str(tmp_path / "x.csv"))


def test_a_test_label_that_training_lacks_is_named(tmp_path):
    for name, labels in (("train", "ab"), ("test", "ac")):
        rows = "".join(f"t,{label}\n" for label in labels)
        (tmp_path / f"{name}.csv").write_text("text,label\n" + rows)
    with pytest.raises(UserError, match=r"row 2 .*test\.csv' has label 'c', which is out of range"):
        load(train=str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"))


def test_missing_and_unknown_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"data\.train: there is no file"):
        load(train=str(tmp_path / "none.csv"))
    (tmp_path / "x.xlsx").write_bytes(b"")
    with pytest.raises(UserError, match=r"valid are \.csv"):
        load(train=str(tmp_path / "x.xlsx"))
    (tmp_path / "x.parquet").write_bytes(b"not parquet")
    with pytest.raises(UserError, match="cannot be read as parquet"):
        load(train=str(tmp_path / "x.parquet"))


def test_an_unreachable_hub_is_said_at_once(monkeypatch, tmp_path):
    from airtune.learning import hub

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"data\.name: .* no hub can be reached; give a local path"):
        load(name="someone/nothing")


def test_limits_draw_the_same_rows_every_time():
    first, second = (load(train_limit=50, test_limit=20) for _ in range(2))
    assert len(first.train) == 50
    assert len(first.test) == 20
    assert first.train["_text"].tolist() == second.train["_text"].tolist()


def test_a_data_set_of_the_hub_keeps_its_splits(tmp_path, monkeypatch):
    """datasets reads a folder as it reads a repository of the hub: same call, same splits."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "mine"
    folder.mkdir()
    ROWS.to_parquet(folder / "train.parquet")
    ROWS.head(2).to_parquet(folder / "test.parquet")
    table = load(name=str(folder))
    assert (len(table.train), len(table.test)) == (4, 2)
    assert table.classes == ["0", "1"]


def test_labels_that_are_missing_or_of_two_kinds_are_refused(tmp_path):
    for rows, message in (
        ('{"text": "a", "label": "x"}\n{"text": "b", "label": null}', "row 2 .* has no label"),
        ('{"text": "a", "label": "x"}\n{"text": "b", "label": 3}', "mixes words and numbers"),
        ('{"text": "a", "label": [1]}\n{"text": "b", "label": [2]}', "row 1 .* has a list"),
    ):
        (tmp_path / "x.jsonl").write_text(rows)
        with pytest.raises(UserError, match=message):
            load(train=str(tmp_path / "x.jsonl"), test=str(tmp_path / "x.jsonl"))


def test_a_rare_class_stays_to_learn_from_when_a_tenth_is_held_out(tmp_path):
    labels = ["common"] * 40 + [f"rare{i}" for i in range(20)]
    frame = pd.DataFrame({"text": [f"t{i}" for i in range(60)], "label": labels})
    frame.to_csv(tmp_path / "x.csv", index=False)
    table = load(train=str(tmp_path / "x.csv"))
    assert len(table.test) == 6
    assert len(table.classes) == 21


def test_files_that_break_while_being_read_are_said(tmp_path):
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"text,label\na,0\n" * 50)[:-20])
    (tmp_path / "y.jsonl").write_text("5\n6\n")
    for name in ("x.csv.gz", "y.jsonl"):
        with pytest.raises(UserError, match=r"cannot be read as|has no column"):
            load(train=str(tmp_path / name), test=str(tmp_path / name))


def test_the_data_keeps_its_own_columns(tmp_path):
    frame = pd.DataFrame({"text": ["a", "b"], "sentence": ["x", "y"], "label": [0, 1]})
    frame.to_csv(tmp_path / "x.csv", index=False)
    table = load(train=str(tmp_path / "x.csv"), test=str(tmp_path / "x.csv"), text="sentence")
    assert table.train["text"].tolist() == ["a", "b"]
    assert table.train["_text"].tolist() == ["x", "y"]
