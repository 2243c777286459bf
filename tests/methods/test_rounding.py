"""Rounded uploads: the server reads the broadcast and what was sent, and the rest is owed."""

import pytest
import torch

from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.wire import RoundedChanges, decode


def watch(parts):
    """Record what clients learned and what the server read of it."""
    learned, read = [], []
    upload, accept = parts.method.upload, parts.method.accept

    def sending(client, grant):
        sent = upload(client, grant)
        learned.append((client.round, client.index, dict(client.adapter), dict(client.state)))
        return sent

    def reading(state, payload):
        found = accept(state, payload)
        read.append((state, payload, found))
        return found

    parts.method.upload, parts.method.accept = sending, reading
    return learned, read


@pytest.mark.parametrize("name", ["fedavg", "pftt"])
def test_what_is_read_and_what_is_owed_is_what_was_learned(small, tmp_path, name):
    from airtune.build import build, session

    method = {"name": name, "change_bits": 4, "private": ["classifier.*"]}
    if name == "pftt":
        method["private"] = ["*.lora_A.*"]
    values = small(method=method, cell="ideal", train={"rounds": 2})
    experiment = Experiment(**values)
    parts = build(experiment)
    learned, read = watch(parts)
    list(session(parts, experiment, tmp_path).rounds())
    assert len(learned) == len(read) == 10
    learned.sort(key=lambda each: each[:2])  # the server reads them in this order
    before = {}
    for (round, client, adapter, state), (server, payload, found) in zip(
        learned, read, strict=True
    ):
        assert isinstance(payload, RoundedChanges)
        for name, tensor in found.tensors.items():
            earlier = before.get(client, {}).get(name, torch.zeros(()))
            assert torch.allclose(
                found.tensors[name] + state["owed"][name], adapter[name] + earlier, atol=1e-6
            )
            assert torch.equal(tensor, server["shared"][name] + payload.tensors[name])
        if round == 2:
            assert any(bool(owed.any()) for owed in before[client].values())
        before[client] = state["owed"]


def test_eight_bits_are_a_quarter_and_a_round_differs_by_half_a_step(execute):
    one = {"rounds": 1}
    parts, whole, rows = execute({"name": "fedavg"}, cell="ideal", train=one)
    _, rounded, others = execute({"name": "fedavg", "change_bits": 8}, cell="ideal", train=one)
    bits = [[r["bits"] for r in each if r["row"] == "upload"] for each in (rows, others)]
    assert 3.0 < bits[0][0] / bits[1][0] < 4.0  # small tensors have names or steps to pay
    for name, tensor in whole.adapter.items():
        gap = (tensor - rounded.adapter[name]).abs().max()
        # Two steps of Adam at this rate move a number by 0.02 at most, in each client.
        assert float(gap) <= 0.5 * 0.021 / 127, name
        assert not torch.equal(tensor, parts.model.initial[name])


def test_rounded_messages_need_no_names(small):
    from airtune.build import build

    parts = build(Experiment(**small(method={"name": "fedavg", "change_bits": 2})))
    shapes = parts.method.uplink_shapes()
    tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}
    from airtune.wire import encode

    read = decode(encode(RoundedChanges(tensors, 2)), shapes)
    assert set(read.tensors) == set(shapes)


def test_other_widths_and_methods_are_refused(small):
    from airtune.build import build

    with pytest.raises(UserError, match=r"method.change_bits"):
        Experiment(**small(method={"name": "fedavg", "change_bits": 7}))
    with pytest.raises(UserError, match=r"method.change_bits: pwff_plus sends its tensors whole"):
        build(Experiment(**small(task="topics", method={"name": "pwff_plus", "change_bits": 4})))
