"""AdaLD: what fits the channel is sent, and what is sent is used."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from airtune.build import build, session
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation import ledger
from airtune.federation.interface import Order
from airtune.radio.grant import Grant
from airtune.wire import decode, encode

ADALD = {"name": "adald"}


@pytest.fixture
def execute(small, tmp_path):
    def run(method, **sections):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        experiment = Experiment(**small(method=method, **sections))
        parts = build(experiment)
        progress = session(parts, experiment, folder)
        rounds = list(progress.rounds())
        uploads = [r for r in ledger.read(folder / "ledger.jsonl") if r["row"] == "upload"]
        return parts, progress, rounds, uploads

    return run


def answers(parts, budgets, state=None):
    """What client 0 answers if granted so many bits, each in a round of its own."""
    message = encode(parts.method.broadcast(state or parts.method.start(), None))
    replies = []
    for round, bits in enumerate(budgets, 1):
        grant = Grant(0, float(bits), 0.2, 1e6, 1e9)
        replies += parts.clients.exchange([Order(0, round, message, grant)])
    return replies


def test_k_grows_with_the_channel_and_the_payload_never_exceeds_it(execute):
    method = {**ADALD, "uplink_seconds": 0.05, "usable": 0.8}
    cell = {"snr_db": [0, 20], "bandwidth_hz": 2e5, "allocation": "equal", "packet_error": 0.0}
    _, _, _, uploads = execute(method, cell=cell)
    sent = [row for row in uploads if row["bits"]]
    assert len(sent) > 10
    assert len({row["notes"]["k"] for row in sent}) > 2
    for row in sent:
        assert row["bits"] <= 0.8 * row["rate_bps"] * 0.05
    # Who shares the band with fewer has more of it, so the rate is what k follows.
    by_rate = sorted((row["rate_bps"], row["notes"]["k"]) for row in sent)
    assert [k for _, k in by_rate] == sorted(k for _, k in by_rate)


def test_k_is_what_the_capacity_carries_of_bits_per_entry(small):
    """The paper's law with d as the bits of one entry of all texts, up to the message's head."""
    parts = build(Experiment(**small(method={**ADALD, "uplink_seconds": None})))
    texts, classes = len(parts.method.setup.public), 8
    for budget in (2500, 4000, 6000):
        (reply,) = answers(parts, [budget])
        capacity = budget - 8 * 54  # container, table and header
        law = capacity // (texts * (16 + 3))
        bitmap = (capacity - texts * classes) // (texts * 16)
        assert reply.notes["k"] == max(law, bitmap)
        assert 8 * len(reply.message) <= budget


def test_it_retreats_in_the_order_of_the_specification(small):
    """Projections go first, then texts, then the whole upload."""
    method = {**ADALD, "projection_weight": 0.3, "min_texts": 10, "uplink_seconds": None}
    parts = build(Experiment(**small(method=method)))
    texts = len(parts.method.setup.public)
    bits, some = parts.method.sizes.bits, torch.arange(10)
    budgets = [
        1e6,
        bits(3, projected=True),
        bits(1, projected=True) - 1,
        bits(1) - 1,
        bits(1, some) - 1,
    ]
    whole, fewer, bare, part, nothing = answers(parts, budgets)
    read = [
        None if r.message is None else decode(r.message, parts.method.uplink_shapes())
        for r in (whole, fewer, bare, part, nothing)
    ]
    assert read[0].projections is not None and "retreat" not in whole.notes
    assert read[1].projections is not None and fewer.notes["k"] < whole.notes["k"]
    assert read[2].projections is None and bare.notes["texts"] == texts
    assert bare.notes["retreat"] == "without projections"
    assert read[3].projections is None and 10 <= part.notes["texts"] < texts
    assert part.notes["k"] == 1 and part.notes["retreat"] == "without projections, fewer texts"
    assert torch.equal(read[3].texts, read[3].texts.unique())
    assert nothing.message is None and "not even 10 public texts" in nothing.problem
    sent = (whole, fewer, bare, part)
    assert all(8 * len(r.message) <= b for r, b in zip(sent, budgets, strict=False))


def test_a_fixed_k_that_does_not_fit_is_not_sent(small):
    parts = build(Experiment(**small(method={**ADALD, "k": 5, "uplink_seconds": None})))
    fits, fails = answers(parts, [parts.method.sizes.bits(5), parts.method.sizes.bits(5) - 1])
    assert fits.notes["k"] == 5
    assert fails.message is None
    assert fails.problem.startswith("k = 5 takes")


def test_all_entries_under_mask_are_the_all_logits_method(execute):
    """At k = C nothing distinguishes AdaLD but its name."""
    _, one, _, _ = execute({"name": "fedmd"}, cell="ideal")
    _, other, _, _ = execute({**ADALD, "aggregation": "mask"}, cell="ideal")
    assert all(torch.equal(one.adapter[name], other.adapter[name]) for name in one.adapter)


def test_the_server_learns_from_logits_alone(execute):
    """Eight classes, chance 0.125; private labels reach the server through logits only."""
    train = {"rounds": 5, "local_steps": 10, "adam_beta2": 0.9, "clip_norm": None}
    for method in ({"name": "fedmd"}, {**ADALD, "k_max": 3}, {"name": "adald_coded", "share": 1.0}):
        parts, _, rounds, _ = execute({**method, "server_steps": 40}, train=train)
        assert "_label" not in parts.table.public
        assert rounds[-1].accuracy > rounds[0].accuracy + 0.15


def test_projections_go_both_ways_and_are_paid_for(execute):
    plain, _, _, without = execute(ADALD, cell="ideal")
    method = {**ADALD, "projection_weight": 0.3, "projection_bits": 8}
    parts, progress, _, uploads = execute(method, cell="ideal")
    texts = len(parts.method.setup.public)
    assert parts.method.projections.shape == (texts, 1, 4)
    assert uploads[0]["bits"] - without[0]["bits"] >= texts * 4 * 8
    known = decode(
        encode(parts.method.broadcast(progress._state, None)), parts.method.downlink_shapes()
    )
    assert known.projections.shape == (texts, 1, 4)
    assert plain.method.projections is None


@pytest.mark.parametrize("rule", ["zero", "prob", "count", "mask"])
def test_what_is_known_is_what_the_rule_makes_of_the_messages(execute, rule, monkeypatch):
    """State and broadcast hold the ensemble of what arrived (the rules: test_ensemble.py)."""
    import airtune.methods.distilling as distilling

    seen = []
    whole = distilling.combine

    def combining(parts, *rest):
        seen.append((parts, whole(parts, *rest)))
        return seen[-1][1]

    monkeypatch.setattr(distilling, "combine", combining)
    _, progress, rounds, _ = execute({**ADALD, "aggregation": rule, "k_max": 3}, cell="ideal")
    assert rounds[-1].delivered == 5
    parts, known = seen[-1]
    assert len(parts) == 5 and all(part.values.shape[1] == 3 for part in parts)
    assert torch.equal(progress._state["known"]["values"], known.values)
    assert ("rest" in progress._state["known"]) == (rule in ("zero", "prob"))


def test_unsent_entries_can_lie_below_the_smallest_one_sent(execute):
    _parts, progress, _, _ = execute({**ADALD, "unsent": "floor", "margin": 3.0, "k_max": 2})
    known = progress._state["known"]
    least = known["values"].masked_fill(known["values"].isinf(), torch.inf).amin(1)
    assert torch.allclose(known["rest"], least - 3.0)


def test_random_entries_are_another_choice_each_round(small):
    method = {**ADALD, "k": 2, "selection": "random", "uplink_seconds": None}
    parts = build(Experiment(**small(method=method)))
    first, second = (
        decode(reply.message, parts.method.uplink_shapes()).index
        for reply in answers(parts, [1e6, 1e6])
    )
    assert not torch.equal(first, second)
    assert len(torch.unique(first)) == 8


def test_clients_of_unequal_depth_teach_a_deeper_server(small, tiny_encoder, tmp_path):
    values = small(
        method={"name": "adald", "k_max": 3},
        clients={"models": [{"name": tiny_encoder, "layers": 1}, {"name": tiny_encoder}]},
        server={"model": {"name": tiny_encoder}, "adapter": {"rank": 2}},
    )
    experiment = Experiment(**values)
    parts = build(experiment)
    depths = [kind.learner.model.backbone.layers for kind in parts.clients.kinds]
    assert depths == [1, None]
    rounds = list(session(parts, experiment, tmp_path).rounds())
    assert rounds[-1].delivered == 5
    # A client's state is an adapter of its own model.
    one, two = (parts.clients.states.get(client)["adapter"] for client in (0, 1))
    assert len(one) < len(two)
    rows = [r for r in ledger.read(tmp_path / "ledger.jsonl") if r["row"] == "upload"]
    seconds = {row["client"]: row["compute_seconds"] for row in rows}
    assert seconds[0] < seconds[1]  # fewer layers, less to compute


def test_families_may_differ_where_classes_are_shared(small, tiny_encoder, tiny_llama, tmp_path):
    values = small(
        method={"name": "adald", "k_max": 3},
        clients={"models": [{"name": tiny_encoder}, {"name": tiny_llama}]},
    )
    experiment = Experiment(**values)
    rounds = list(session(build(experiment), experiment, tmp_path).rounds())
    assert rounds[-1].delivered == 5


@pytest.mark.parametrize("name", ["fedmd", "adald", "adald_coded"])
def test_token_logits_of_a_causal_model(execute, name):
    method = {"name": name} | ({} if name == "fedmd" else {"k_max": 8})
    train = {"learning_rate": 2e-2, "local_steps": 8}
    parts, _, rounds, uploads = execute(method, task="causal", train=train)
    assert len(parts.method.positions) > 4 * len(parts.method.setup.public)
    assert rounds[-1].perplexity < 0.94 * rounds[0].perplexity
    if name != "fedmd":
        assert max(row["bits"] for row in uploads) < 0.1 * parts.method.dense_bits


def test_vocabularies_padded_to_unequal_sizes_are_cut_to_the_smaller(
    small, tiny_llama, tmp_path, frames
):
    """Families pad their output layers differently around one tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    wide = tmp_path / "wide"
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    model.resize_token_embeddings(416)
    model.save_pretrained(wide)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(wide)
    models = [{"name": tiny_llama}, {"name": str(wide)}]
    for server in models:
        values = small(
            task="causal", method={"name": "fedmd"}, clients={"models": models},
            server={"model": server}, train={"rounds": 2}, data={"public_rows": 20},
        )  # fmt: skip
        experiment = Experiment(**values)
        parts = build(experiment)
        assert parts.method.setup.width == 400
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        progress = session(parts, experiment, folder)
        assert list(progress.rounds())[-1].delivered == 5
        assert int(progress._state["known"]["index"].max()) == 399


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_a_message_without_projections_arrives_whatever_their_bits(execute, weight):
    method = ADALD | {"projection_bits": 4, "projection_weight": weight, "uplink_seconds": 0.05}
    room = {"snr_db": [0, 5], "bandwidth_hz": 200e3, "packet_error": 0.0}
    _, _, _, uploads = execute(method, cell=room)
    sent = [row for row in uploads if row["bits"]]
    assert {row["status"] for row in sent} == {"delivered"}
    if weight:
        assert any("without projections" in row["notes"].get("retreat", "") for row in sent)


@pytest.mark.parametrize(
    ("method", "hostile"),
    [
        ({"name": "adald"}, {"value_bits": 32}),
        ({"name": "adald"}, {}),
        ({"name": "adald_coded", "share": 1.0}, {}),
    ],
    ids=str,
)
def test_one_huge_logit_is_refused_and_the_others_go_on(
    small, tmp_path, monkeypatch, method, hostile
):
    experiment = Experiment(**small(method=method, cell="ideal"))
    parts = build(experiment)
    exchange, shapes = parts.clients.exchange, parts.method.uplink_shapes()

    def corrupting(orders):
        replies = exchange(orders)
        payload = decode(replies[0].message, shapes)
        if hasattr(payload, "scale"):
            payload = replace(payload, scale=replace(payload.scale, low=-2e38, step=1e37))
        else:
            payload = replace(payload, values=payload.values * 3e4, **hostile)
        return [replace(replies[0], message=encode(payload)), *replies[1:]]

    monkeypatch.setattr(parts.clients, "exchange", corrupting)
    progress = session(parts, experiment, tmp_path)
    rounds = list(progress.rounds())
    rows = [r for r in ledger.read(tmp_path / "ledger.jsonl") if r["row"] == "upload"]
    # In the first round heads are at zero, so what is multiplied may still be small.
    assert {row["status"] for row in rows if row["client"] == 0 and row["round"] > 1} == {"refused"}
    assert rounds[-1].delivered == 4
    assert all(torch.isfinite(tensor).all() for tensor in progress.adapter.values())


def test_newcomers_work_longer_and_that_is_planned(execute):
    """With two of five clients a round, later rounds have first-timers too."""
    parts, progress, _, uploads = execute(
        {**ADALD, "warm_up_steps": 20}, clients={"per_round": 2}, train={"rounds": 6}, cell="ideal"
    )
    met = set()
    for row in uploads:
        newcomer = row["client"] not in met
        met.add(row["client"])
        if row["round"] > 1:
            work = parts.method._work({"version": 1}, 20 if newcomer else 0)
            planned = parts.method.setup.compute_seconds(np.array([row["client"]]), work)
            assert row["compute_seconds"] == pytest.approx(planned[0], rel=0.3)
    assert set(progress._state["met"].nonzero().squeeze(1).tolist()) == met


def test_causal_models_with_other_tokens_are_refused(small, tiny_llama, shared):
    other = str(shared("models/stories260k"))
    values = small(
        task="causal", method=ADALD, clients={"models": [{"name": tiny_llama}, {"name": other}]}
    )
    with pytest.raises(UserError, match="different tokenizers"):
        build(Experiment(**values))
    short = {"name": tiny_llama, "max_tokens": 16}
    values = small(task="causal", method=ADALD, clients={"models": [{"name": tiny_llama}, short]})
    with pytest.raises(UserError, match="max_tokens"):
        build(Experiment(**values))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"method": {"name": "adald", "k_min": 80}}, "k_min: 80 is above the 8 entries"),
        ({"method": {"name": "adald", "k": 9}}, "method.k: 9 is above"),
        ({"method": {"name": "adald", "temperature": 0}}, "method.temperature"),
        ({"method": {"name": "adald", "temperature": -1}}, "method.temperature"),
        ({"method": {"name": "adald", "k_min": 4, "k_max": 3}}, "k_max \\(3\\) is below k_min"),
        ({"method": {"name": "adald_coded", "aggregation": "prob"}}, "method.aggregation"),
        ({"method": {"name": "adald", "projection_weight": 1}, "adapter": {"kind": "ia3"}},
         "use adapter.kind lora"),
        ({"method": {"name": "adald"}, "data": {"public_rows": 9999}}, "leave nothing"),
        ({"method": {"name": "fedavg"}, "server": {"model": {"layers": 1}}}, r"server.model: "),
        ({"method": {"name": "fedavg"}, "clients": {"models": [{"layers": 1}]}}, "clients.models"),
        ({"method": {"name": "adald"}, "model": {"layers": 9}}, "layers"),
        ({"method": {"name": "feddf", "private": ["classifier.*"]}}, "method.private: there is no"),
        ({"method": {"name": "adald", "k": 6, "k_max": 5}}, r"k \(6\) is outside of k_min"),
        ({"method": {"name": "adald_coded", "gauge": "shared"}}, "method.gauge: there is no such"),
        ({"method": {"name": "adald_coded", "k_max": 500}}, "method.k_max"),
        ({"method": {"name": "adald"}, "cell": {"snr_db": [20, 0]}}, "snr_db"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_input_gets_a_sentence(small, tiny_encoder, sections, message):
    values = small(**sections)
    for model in (values["model"], values.get("server", {}).get("model", {})):
        model.setdefault("name", tiny_encoder)
    with pytest.raises(UserError, match=message):
        build(Experiment(**values))


def test_public_texts_of_a_file_lose_their_labels_which_must_be_of_the_private_data(
    small, tmp_path, frames
):
    public = frames[0].head(30)
    path = tmp_path / "public.csv"
    public.to_csv(path, index=False)
    parts = build(Experiment(**small(method=ADALD, data={"public": str(path)})))
    assert len(parts.method.setup.public) == 30
    assert "_label" not in parts.table.public and "label" not in parts.table.public
    assert len(parts.table.train) == 240  # nothing was set aside
    public.assign(label="no such intent").to_csv(path, index=False)
    with pytest.raises(UserError, match=r"row 1 of .* has label 'no such intent'"):
        build(Experiment(**small(method=ADALD, data={"public": str(path)})))
    path.write_text("text\n")
    with pytest.raises(UserError, match=r"data.public: .* has no rows"):
        build(Experiment(**small(method=ADALD, data={"public": str(path)})))


def test_public_rows_are_nobodys_private_rows(small, frames):
    values = small(method=ADALD, data={"public_rows": 50})
    table = build(Experiment(**values)).table
    assert len(table.public) == 50
    assert len(table.train) == 190
    both = pd.concat([table.public, table.train])["text"]
    assert sorted(both) == sorted(frames[0]["text"])
    # Who needs none has none, and then the private rows are those of ever.
    assert len(build(Experiment(**small(method="fedavg"))).table.public) == 0


def test_what_is_noted_of_an_upload_stands_in_the_ledger_as_columns(execute, tmp_path):
    execute(ADALD, cell="ideal")
    rows = (tmp_path / "0" / "ledger.jsonl").read_text().splitlines()
    frame = ledger.uploads(json.loads(row) for row in rows)
    assert (frame["k"] == 8).all()
    assert "notes" not in frame
    assert np.isfinite(frame["texts"]).all()
