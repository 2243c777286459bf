"""The promises of DESIGN.md, kept by every registered method, with and without private parts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from airtune.federation import ledger
from airtune.federation.interface import Order
from airtune.learning.low_rank import factors
from airtune.learning.shifts import shifts, without_shifts
from airtune.methods import registry
from airtune.radio.grant import Grant
from airtune.wire import Dense, WireError, decode, encode

# Fewer steps than by default: the promises do not depend on them.
QUICK = {"warm_up_steps": 1, "public_steps": 2, "server_steps": 3}


ALIGNING = ("pfit", "pwff", "pwff_plus")  # they answer prompts


def quick(name):
    known = registry.find(name).Config.model_fields
    # Of plain LoRA PFTT has something to share only if a factor travels.
    own = {"private": ["*.lora_B.*"]} if name in ("pftt", "pwff") else {}
    if name in ALIGNING:
        own |= {"answers": {"prompts": 2, "samples": 2, "tokens": 4}}
        own |= {"examined": {"prompts": 2, "samples": 1, "tokens": 4}}
    return {"name": name} | own | {key: value for key, value in QUICK.items() if key in known}


METHODS = [quick(name) for name in registry.names()]
METHODS.append(
    quick("adald") | {
        "projection_weight": 0.3, "gauge": "procrustes", "train_a": True, "aggregation": "prob",
        "downlink": "server", "projection_bits": 4, "tap": "all",
    }
)  # fmt: skip
METHODS.append(quick("fedex_lora") | {"residual_rank": 2, "value_bits": 16})
METHODS.append(quick("soft") | {"residual": True, "kept_ratio": 0.5})


def needs_b(name):
    """Whether a method is of no use without a B that travels."""
    return name == "ffa_lora" or getattr(registry.find(name), "needs_products", False)


PRIVATE = [
    quick(name)
    | {
        "private": [
            "classifier.*",
            *([] if needs_b(name) else ["*.lora_B.*"]),
        ],
    }
    for name in registry.names()
    # Of those that align PWFF has private parts above already, by code that all have.
    if "private" in registry.find(name).Config.model_fields and name not in ALIGNING
]


def title(method):
    return "-".join(str(value) for key, value in method.items() if key not in QUICK)


def held_to(methods):
    """Parametrise a promise with the methods that it has a meaning for."""
    return pytest.mark.parametrize("method", methods, ids=title)


every_method = held_to(METHODS + PRIVATE)
# Another process takes seconds: one method of each family; of the others it is known by the test
# of every method's tensors that what they export is the same sort of adapter.
EXPORTED = [m for m in METHODS + PRIVATE if m["name"] in ("fedavg", "adald", "flexlora")]
EXPORTED.append(quick("fedex_lora"))  # has shifts, which are absorbed


def rows(folder, kind):
    return [row for row in ledger.read(folder / "ledger.jsonl") if row["row"] == kind]


def tap(parts, monkeypatch):
    """Record every message that the federation carries, both ways."""
    down, up = [], []
    exchange = parts.clients.exchange

    def listening(orders):
        replies = exchange(orders)
        down.append({order.client: order.message for order in orders})
        up.append({reply.client: reply.message for reply in replies})
        return replies

    monkeypatch.setattr(parts.clients, "exchange", listening)
    return down, up


@every_method
def test_bits_charged_are_eight_times_the_bytes_that_crossed(
    method, execute, monkeypatch, small, tmp_path
):
    from airtune.build import build, session
    from airtune.experiment import Experiment

    experiment = Experiment(**small(method=method))
    parts = build(experiment)
    down, up = tap(parts, monkeypatch)
    list(session(parts, experiment, tmp_path).rounds())
    for row in rows(tmp_path, "upload"):
        assert row["bits"] == 8 * len(up[row["round"] - 1][row["client"]])
    for row in rows(tmp_path, "broadcast"):
        assert {8 * len(message) for message in down[row["round"] - 1].values()} == {row["bits"]}
    for row in rows(tmp_path, "round")[1:]:
        sent = up[row["round"] - 1].values()
        assert row["uplink_bits"] == sum(8 * len(message) for message in sent)


@every_method
def test_private_tensors_never_appear_in_a_payload(method, small, tmp_path, monkeypatch):
    from airtune.build import build, session
    from airtune.experiment import Experiment

    experiment = Experiment(**small(method=method))
    parts = build(experiment)
    down, up = tap(parts, monkeypatch)
    list(session(parts, experiment, tmp_path).rounds())
    private = {n for n in parts.model.initial if not parts.method.is_shared(n)}
    if parts.method.private == ("*",):
        assert private == set(parts.model.initial)
    else:
        # A frozen A has no need to travel.
        assert bool(private) == bool(parts.method.private)
    known = parts.method.downlink_shapes(), parts.method.uplink_shapes()
    for direction, shapes in zip((down, up), known, strict=True):
        for message in (each for messages in direction for each in messages.values()):
            assert not any(name.encode() in message for name in private)
            payload = decode(message, shapes)
            assert not private & set(payload.to_arrays()[1])
    # Nor do their values: a private tensor's bytes occur in no message.
    for client in parts.clients.states:
        state = parts.clients.states.get(client)
        kept = {**state.get("private", {}), **state.get("adapter", {})}
        assert kept or not private
        for tensor in kept.values():
            assert not any(
                tensor.numpy().tobytes() in message for m in up for message in m.values()
            )


@every_method
def test_what_all_clients_hear_is_written_into_by_none(method, small, tmp_path, monkeypatch):
    """One decoded broadcast serves all of them, so a method must not change it."""
    from airtune.build import build, session
    from airtune.experiment import Experiment

    experiment = Experiment(**small(method=method))
    parts = build(experiment)
    heard = []
    receive = parts.method.receive

    def listening(client, payload):
        receive(client, payload)
        heard.append((payload, encode(payload)))

    monkeypatch.setattr(parts.method, "receive", listening)
    list(session(parts, experiment, tmp_path).rounds())
    assert heard
    assert all(encode(payload) == message for payload, message in heard)


FORESEEN = [m for m in METHODS if not registry.find(m["name"]).sizes_vary]


@held_to(FORESEEN)
def test_a_plan_foresees_what_a_run_is_charged(method, execute, small):
    import airtune
    from airtune.federation.costs import Costs
    from airtune.federation.records import as_row

    # In a wide band computing would hide what is sent.
    sections = {"cell": {"bandwidth_hz": 1e6}, "train": {"rounds": 2, "evaluate_every": 2}}
    plan = airtune.plan(airtune.Experiment(**small(method=method, **sections)))
    folder, _, _ = execute(method, **sections)
    run = Costs.of([as_row(row) for row in ledger.read(folder / "ledger.jsonl")])
    assert plan.arrived == run.arrived
    for name in ("upload_bits", "uplink_bits", "downlink_bits", "upload_s", "airtime_s"):
        assert getattr(plan, name).mean == pytest.approx(getattr(run, name).mean, rel=0.03), name
    if method["name"] not in ALIGNING:  # answers may end before the plan's longest
        for name in ("compute_s", "round_s", "device_j"):
            assert getattr(plan, name).mean == pytest.approx(getattr(run, name).mean, rel=0.03)


@every_method
def test_client_states_in_files_change_no_byte(method, execute):
    reference, _, one = execute(method)
    for memory in (0, 1.0):
        machine = {"client_states_gb": memory, "checkpoint_every": 2}
        folder, _, other = execute(method, machine=machine)
        assert (folder / "ledger.jsonl").read_bytes() == (reference / "ledger.jsonl").read_bytes()
        assert all(torch.equal(one.adapter[n], other.adapter[n]) for n in one.adapter)


@every_method
def test_killed_after_any_round_and_resumed_it_ends_with_the_same_bytes(method, execute):
    whole, _, complete = execute(method, "whole")
    for stopped in (0, 1, 2, 3):
        cut = f"cut{stopped}"
        execute(method, cut, stop_after=stopped)
        # A kill between two commits leaves rows that no checkpoint knows of.
        with (whole.parent / cut / "ledger.jsonl").open("a") as file:
            file.write('{"row":"upload","round":99,"cli')
        folder, _, resumed = execute(method, cut)
        assert (folder / "ledger.jsonl").read_bytes() == (whole / "ledger.jsonl").read_bytes()
        assert all(torch.equal(complete.adapter[n], resumed.adapter[n]) for n in complete.adapter)


@every_method
def test_a_cohort_of_k_equals_k_cohorts_of_one(method, execute):
    reference, _, one = execute(method, machine={"cohort": 3})
    for cohort in (1, 2, 5):
        folder, _, other = execute(method, machine={"cohort": cohort})
        assert (folder / "ledger.jsonl").read_bytes() == (reference / "ledger.jsonl").read_bytes()
        assert all(torch.equal(one.adapter[n], other.adapter[n]) for n in one.adapter)


@every_method
def test_without_limits_the_radio_changes_nothing_but_the_cost(method, execute):
    _, _, ideal = execute(method, cell="ideal")
    lossless = {"preset": "urban-micro", "bandwidth_hz": 1e9, "power_dbm": 60, "packet_error": 0.0}
    folder, _, real = execute(method, cell=lossless)
    assert {row["status"] for row in rows(folder, "upload")} == {"delivered"}
    assert all(torch.equal(ideal.adapter[n], real.adapter[n]) for n in ideal.adapter)
    assert ideal._runner.clock.now < real._runner.clock.now


@every_method
def test_lost_uplinks_never_raise_and_leave_the_model_where_it_was(method, execute):
    # Every packet is lost: each upload costs time and energy, and none arrives.
    hopeless = {"preset": "urban-micro", "packet_error": 0.999, "max_transmissions": 1}
    folder, parts, progress = execute(method, cell=hopeless)
    uploads = rows(folder, "upload")
    assert {row["status"] for row in uploads} == {"lost"}
    assert all(row["bits"] > 0 and row["joules"] > 0 for row in uploads)
    start = parts.method.model(parts.method.start())
    assert all(torch.equal(progress.adapter[n], start[n]) for n in start)


@every_method
def test_some_lost_uplinks_give_the_model_of_those_that_arrived(method, execute):
    statistical = {"preset": "legacy-macro", "csi": "statistical", "fade_margin_db": 2.0}
    folder, _, progress = execute(method, cell=statistical, seed=3)
    statuses = [row["status"] for row in rows(folder, "upload")]
    assert {"delivered", "outage"} <= set(statuses)
    assert all(bool(torch.isfinite(t).all()) for t in progress.adapter.values())


@every_method
def test_a_payload_of_garbage_is_refused_and_the_run_goes_on(method, small, tmp_path, monkeypatch):
    from airtune.build import build, session
    from airtune.experiment import Experiment

    experiment = Experiment(**small(method=method, cell="ideal"))
    parts = build(experiment)
    exchange = parts.clients.exchange
    wrong = encode(Dense({n: t * float("inf") for n, t in parts.model.initial.items()}))

    def corrupting(orders):
        replies = exchange(orders)
        object.__setattr__(replies[0], "message", b"\0" * 100)
        object.__setattr__(replies[1], "message", wrong)
        object.__setattr__(replies[2], "message", replies[2].message[:-9])
        return replies

    monkeypatch.setattr(parts.clients, "exchange", corrupting)
    progress = session(parts, experiment, tmp_path)
    list(progress.rounds())
    statuses = {row["client"]: row["status"] for row in rows(tmp_path, "upload")}
    assert [statuses[c] for c in range(5)] == ["refused"] * 3 + ["delivered"] * 2
    # A client cannot push private tensors into the federation either.
    private = {n: t for n, t in parts.model.initial.items() if not parts.method.is_shared(n)}
    if private:
        with pytest.raises(WireError, match="not part of"):
            decode(encode(Dense(private)), parts.method.uplink_shapes())
    assert all(bool(torch.isfinite(t).all()) for t in progress.adapter.values())


@every_method
def test_uploads_fit_their_grants_and_the_ledger_says_who_could_not(method, execute):
    cell = {"preset": "urban-micro", "radius_m": 400, "power_dbm": 10, "deadline_s": 0.3}
    folder, _, _ = execute(method, cell=cell, data={"train_limit": 200})
    uploads = rows(folder, "upload")
    assert {"delivered", "skipped"} <= {row["status"] for row in uploads}
    for row in uploads:
        if row["status"] == "skipped":
            assert row["reason"] == "outage" or "by the deadline" in row["reason"]
            assert row["bits"] == 0
        else:
            assert 0 < row["bits"] <= row["granted_bits"]


@every_method
def test_the_learned_adapter_has_the_tensors_of_the_model(method, execute):
    _, parts, progress = execute(method, train={"rounds": 1})
    shapes = {name: tensor.shape for name, tensor in parts.model.initial.items()}
    learned = without_shifts(progress.adapter)
    assert {name: tensor.shape for name, tensor in learned.items()} == shapes
    for matrix, shift in shifts(progress.adapter).items():
        a, b = factors(learned, matrix)
        assert shift.shape == (len(b), a.shape[1])
    assert all(tensor.dtype == torch.float32 for tensor in progress.adapter.values())


@held_to(EXPORTED)
def test_the_learned_adapter_loads_with_plain_peft(method, execute, tmp_path):
    import subprocess
    import sys

    from airtune.learning.export import write_adapter

    _, parts, progress = execute(method)
    folder = tmp_path / "adapter"
    write_adapter(parts.model, progress.adapter, parts.table.classes, folder)
    rows_ = parts.evaluator._test.batch(np.arange(4))
    parts.model.slots.load([progress.adapter])
    with torch.inference_mode():
        expected = parts.model.logits(rows_)
    torch.save((rows_, expected), tmp_path / "expected.pt")
    # Another process, started in the folder, with airtune made unimportable.
    script = (
        "import sys; sys.modules['airtune'] = None\n"
        "import torch\n"
        "from peft import PeftModel\n"
        "from base_model import base_model\n"
        "model = PeftModel.from_pretrained(base_model(), '.').eval()\n"
        "batch, expected = torch.load('../expected.pt')\n"
        "inputs = {k: batch[k] for k in ('input_ids', 'attention_mask')}\n"
        "print(float((model(**inputs).logits - expected).abs().max()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
    )
    assert float(done.stdout.splitlines()[-1]) < 1e-5
    assert json.loads((folder / "labels.json").read_text()) == parts.table.classes


@every_method
def test_an_order_that_grants_too_little_sends_nothing(method, execute):
    _, parts, progress = execute(method, cell="ideal")
    message = encode(parts.method.broadcast(progress._state, None))
    order = Order(0, 9, message, Grant(0, 100.0, 0.2, 1e6, 1e6))
    (reply,) = parts.clients.exchange([order])
    assert reply.message is None
    assert reply.problem
