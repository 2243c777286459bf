"""Preference data from files: pairs of answers behind one prompt, in the forms that data have."""

import json

import numpy as np
import pandas as pd
import pytest
from transformers import AutoTokenizer

from airtune.build import build
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.learning.config import DataConfig
from airtune.learning.data.examples import IGNORED, tokenise
from airtune.learning.data.preferences import split
from airtune.learning.data.sources import load_table

PAIR = {"chosen": "chosen", "rejected": "rejected"}


def written(tmp_path, rows, kind="jsonl"):
    path = tmp_path / f"rows.{kind}"
    frame = pd.DataFrame(rows)
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def read(path, **keys):
    return load_table(DataConfig(**{"train": path, "test": path, **PAIR, **keys}), 0)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_prompt_with_two_answers(tmp_path, kind):
    rows = [{"q": "one?", "more": "", "good": "yes", "bad": "no"} for _ in range(3)]
    rows[1]["more"] = "or two"
    table = read(written(tmp_path, rows, kind), prompt=["q", "more"], chosen="good", rejected="bad")
    assert (table.task, table.preferences) == ("causal", True)
    assert table.train["_prompt"].tolist() == ["one?\n", "one?\nor two\n", "one?\n"]
    assert table.train["_text"].tolist() == ["yes"] * 3
    assert table.train["_rejected"].tolist() == ["no"] * 3


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_messages_become_a_dialogue(tmp_path, kind):
    rows = [
        {
            "talk": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello."},
                     {"from": "human", "value": "Why?"}],
            "chosen": {"from": "gpt", "value": "Because."},
            "rejected": {"from": "gpt", "value": "No."},
        }
    ] * 2  # fmt: skip
    table = read(written(tmp_path, rows, kind), prompt="talk")
    shown = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant: "
    assert table.train.loc[0, ["_prompt", "_text", "_rejected"]].tolist() == [
        shown, "Because.", "No.",
    ]  # fmt: skip
    whole = [{"role": "user", "content": "Hi."}]
    rows = [
        {key: [*whole, {"role": "assistant", "content": text}] for key, text in
         (("chosen", "Hello."), ("rejected", "Help."))}
    ] * 2  # fmt: skip
    table = read(written(tmp_path, rows, kind))
    assert table.train.loc[0, ["_prompt", "_text", "_rejected"]].tolist() == [
        "\n\nHuman: Hi.\n\nAssistant:", " Hello.", " Help.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("chosen", "rejected", "parts"),
    [
        ("\n\nHuman: a\n\nAssistant: No.", "\n\nHuman: a\n\nAssistant: Not.",
         ("\n\nHuman: a\n\nAssistant:", " No.", " Not.")),
        ("\n\nHuman: a\n\nAssistant:", "\n\nHuman: a\n\nAssistant: x",
         ("\n\nHuman: a\n\nAssistant:", "", " x")),
        ("a story of cats", "a story of cars", ("a story of ", "cats", "cars")),
        ("cats", "cars", ("", "cats", "cars")),
        ("same words", "same words", ("same ", "words", "words")),
    ],
)  # fmt: skip
def test_what_two_dialogues_share_is_the_prompt(chosen, rejected, parts):
    assert split(chosen, rejected) == parts


def test_examples_are_pairs_behind_the_same_tokens(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    frame = pd.DataFrame(
        {
            "_prompt": ["show the route", "the " * 30],
            "_text": ["to the port", "a b"],
            "_rejected": ["no", "of " * 20],
        }
    )
    examples = tokenise(frame, "causal", tokenizer, 24)
    assert examples.rows.tolist() == [[0, 1], [2, 3]]
    corpus = examples.corpus
    for first, second in examples.rows:
        heads = [
            corpus.tokens[corpus.offsets[row] :][: corpus.targets[row]] for row in (first, second)
        ]
        assert np.array_equal(*heads), "answers to different questions"
    # Each side is what it is alone, where the prompt has room for both.
    alone = tokenise(frame.drop(columns="_rejected"), "causal", tokenizer, 24).corpus
    ends = corpus.offsets[[0, 1]]
    assert corpus.tokens[slice(*ends)].tolist() == alone.tokens[: alone.offsets[1]].tolist()
    batch = examples.batch(np.array([1]))
    assert batch["input_ids"].shape[0] == 2
    assert (batch["labels"] != IGNORED).sum(1).tolist() == [3, 12]  # with the end, and cut


def test_what_does_not_fit_is_named(tmp_path):
    path = written(tmp_path, [{"chosen": "a", "rejected": 3, "prompt": "p"}] * 2)
    for keys, message in [
        ({"chosen": "choosen"}, "data.chosen: .* no column 'choosen'; did you mean 'chosen'"),
        ({"rejected": "worse"}, "data.rejected: .* has no column 'worse'; valid are"),
        ({"rejected": "chosen", "prompt": "q"}, "data.prompt: .* has no column 'q'"),
        ({"prompt": "prompt"}, "data.rejected: row 1 .* neither a text nor messages"),
    ]:
        with pytest.raises(UserError, match=message):
            read(path, **keys)
    for keys, message in [
        ({"chosen": "a"}, "chosen and rejected go together"),
        ({**PAIR, "label": "c"}, "exclude another"),
        ({**PAIR, "prompt": "p", "response": "r"}, "exclude another"),
    ]:
        with pytest.raises(UserError, match=message):
            Experiment(data=keys, clients={"partition": "iid"})
    with pytest.raises(UserError, match="dirichlet needs labels, and preference data has none"):
        Experiment(data=PAIR)


def test_clients_hold_pairs_if_the_method_learns_from_them(small, tmp_path, monkeypatch):
    rows = [{"prompt": "show", "chosen": f"the port {i}", "rejected": "no"} for i in range(40)]
    path = written(tmp_path, rows)
    data = {"train": path, "test": path, "prompt": "prompt", "response": None, **PAIR}
    experiment = Experiment(**small("causal", data=data))
    with pytest.raises(UserError, match="'fedavg' would learn rejected answers too"):
        build(experiment)
    from airtune.methods.fedavg import FedAvg

    monkeypatch.setattr(FedAvg, "learns_preferences", True)
    parts = build(experiment)
    seen = set()
    for data in parts.clients.data:
        assert data.sequences == 2
        assert (data.rows[:, 1] == data.rows[:, 0] + 1).all()
        assert (data.rows[:, 0] % 2 == 0).all()
        seen |= set(data.rows[:, 0].tolist())
    assert len(seen) == sum(len(data) for data in parts.clients.data)


@pytest.mark.parametrize(
    ("file", "prompt", "pairs"),
    [
        ("hh_rlhf/harmless_base_test.jsonl.gz", None, 2312),
        ("pref_small/polite_preference_1k.jsonl.gz", ["instruction", "input"], 1100),
        ("dpo_en_demo/dpo_en_300.jsonl.gz", "conversations", 300),
    ],
)
def test_real_preferences_load(shared, file, prompt, pairs):
    path = str(shared(f"data/{file}"))
    table = load_table(DataConfig(train=path, prompt=prompt, **PAIR), 0)
    both = pd.concat([table.train, table.test])
    assert len(both) == pairs
    assert not (both["_prompt"].str.strip() == "").any()
    differ = both["_text"] != both["_rejected"]
    assert differ.mean() > 0.98
    if prompt is None:
        assert both["_prompt"].str.endswith("\n\nAssistant:").mean() > 0.99
        assert (both["_prompt"] + both["_text"]).tolist() == both["chosen"].tolist()
