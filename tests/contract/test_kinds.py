"""Every kind of adapter goes through a federated run: averaged, resumed, in cohorts, exported."""

import re

import numpy as np
import pytest
import torch

import airtune
from airtune.build import build, session
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation import ledger
from airtune.methods import registry
from airtune.wire import Dense, decode, encode

BESIDE = {"kind": "lora+bottleneck", "bottleneck": 4}
KINDS = [
    {"kind": "ia3"},
    {"kind": "bottleneck", "bottleneck": 4},
    BESIDE,
    {"kind": "blocks", "top_layers": 1},
]
every_kind = pytest.mark.parametrize("adapter", KINDS, ids=lambda adapter: adapter["kind"])
COMPONENTS = [
    {"name": "topk"},
    {"name": "ffa_lora"},
    {"name": "fedex_lora"},
    {"name": "flexlora"},
    {"name": "hetlora"},
    {"name": "lora_svd"},
    {"name": "soft"},
    {"name": "soft_coded"},
]
every_one_of_lora = pytest.mark.parametrize("method", COMPONENTS, ids=lambda method: method["name"])


@every_kind
def test_averaging_is_the_weighted_mean_of_what_clients_learned(small, tmp_path, adapter):
    values = small(adapter=adapter, cell="ideal", train={"rounds": 1, "local_steps": 3})
    experiment = Experiment(**values)
    parts = build(experiment)
    learned = {}
    upload = parts.method.upload

    def watching(client, grant):
        learned[client.index] = dict(client.adapter)
        return upload(client, grant)

    parts.method.upload = watching
    progress = session(parts, experiment, tmp_path)
    list(progress.rounds())
    sizes = {client: len(parts.clients.data[client]) for client in learned}
    assert sorted(learned) == [0, 1, 2, 3, 4]
    for name, start in parts.model.initial.items():
        mean = sum(n * learned[c][name].double() for c, n in sizes.items()) / sum(sizes.values())
        assert torch.allclose(progress.adapter[name].double(), mean, atol=1e-6), name
        assert not torch.equal(progress.adapter[name], start), name
    sent = [row for row in ledger.read(tmp_path / "ledger.jsonl") if row["row"] == "upload"]
    assert {row["bits"] for row in sent} == {8 * len(encode(Dense(parts.model.initial, "float32")))}


@every_kind
def test_it_is_resumed_in_other_cohorts_with_the_same_bytes(execute, adapter):
    whole, _, complete = execute("fedavg", "whole", adapter=adapter, machine={"cohort": 5})
    execute("fedavg", "cut", stop_after=1, adapter=adapter, machine={"cohort": 1})
    folder, _, resumed = execute("fedavg", "cut", adapter=adapter, machine={"cohort": 2})
    assert (folder / "ledger.jsonl").read_bytes() == (whole / "ledger.jsonl").read_bytes()
    assert all(torch.equal(complete.adapter[n], resumed.adapter[n]) for n in complete.adapter)


def test_a_shared_bottleneck_beside_private_lora(execute):
    """The round of PFTT: what is private stays with its client and personalises it."""
    adapter = BESIDE | {"bottleneck_bias": False}
    method = {"name": "fedavg", "private": ["*lora_*", "classifier.*"]}
    folder, parts, progress = execute(method, adapter=adapter, train={"rounds": 2})
    shared = {n for n in parts.model.initial if "bottleneck" in n}
    assert set(parts.method.shared(parts.model.initial)) == shared
    assert {n for n in progress.adapter if n in shared} == shared
    kept = [parts.clients.states.get(client)["private"] for client in range(5)]
    for name in parts.model.initial.keys() - shared:
        assert torch.equal(progress.adapter[name], parts.model.initial[name])
        assert not torch.equal(kept[0][name], kept[1][name])
    rounds = [row for row in ledger.read(folder / "ledger.jsonl") if row["row"] == "round"]
    assert len({row["accuracy"] for row in rounds}) == 1  # the server has nobody's head
    message = encode(parts.method.broadcast(progress._state, None))
    for client in range(5):
        own = parts.clients.personal_adapter(client, 3, message)
        assert all(torch.equal(own[name], tensor) for name, tensor in kept[client].items())
        assert all(torch.equal(own[name], progress.adapter[name]) for name in shared)
    # Two maps of 32 x 4 behind two places of two layers.
    numbers = sum(
        t.numel() for t in decode(message, parts.method.downlink_shapes()).tensors.values()
    )
    assert numbers == 2 * 2 * 2 * 32 * 4


@every_one_of_lora
def test_methods_of_lora_treat_bottlenecks_as_they_treat_a_head(execute, method):
    folder, parts, progress = execute(
        method, adapter=BESIDE, cell="ideal", train={"rounds": 1, "local_steps": 3}
    )
    whole = parts.method.whole(parts.model.initial) if hasattr(parts.method, "whole") else {}
    for name, start in parts.model.initial.items():
        if "bottleneck" in name:
            assert not torch.equal(progress.adapter[name], start), name
            assert name in whole or method["name"] == "ffa_lora"
    sent = [row for row in ledger.read(folder / "ledger.jsonl") if row["row"] == "upload"]
    assert {row["status"] for row in sent} == {"delivered"}


@every_one_of_lora
@pytest.mark.parametrize("adapter", [KINDS[1], KINDS[3]], ids=lambda adapter: adapter["kind"])
def test_methods_of_lora_refuse_kinds_without_it(small, method, adapter):
    with pytest.raises(UserError, match=r"use adapter\.kind lora"):
        build(Experiment(**small(method=method, adapter=adapter)))


def test_every_method_that_needs_lora_is_tried_here(small):
    # PFTT and PWFF keep LoRA private, and PWFF+ turns it: their own tests say what that needs.
    needing = {method["name"] for method in COMPONENTS} | {"pftt", "pwff", "pwff_plus"}
    for name in registry.names():
        try:
            build(Experiment(**small(method=name, adapter=KINDS[3])))
        except UserError:
            assert name in needing, name
        else:
            assert name not in needing, name


@pytest.mark.parametrize("adapter", KINDS[1:], ids=lambda adapter: adapter["kind"])
def test_a_run_writes_and_exports_what_its_readme_loads(small, tmp_path, adapter):
    run = airtune.run(Experiment(**small(adapter=adapter, train={"rounds": 1})), tmp_path / "run")
    airtune.export(run, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"adapter.safetensors", "load.py", "base_model.py", "labels.json", "README.md"} <= names
    readme = (tmp_path / "out" / "README.md").read_text()
    assert re.search(rf"kind {re.escape(adapter['kind'])} ", readme)
    assert np.isfinite(run.history["loss"]).all()
