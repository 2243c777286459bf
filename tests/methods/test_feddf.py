"""FedDF: the average, improved by what its parts know together."""

import torch

from airtune.build import build
from airtune.experiment import Experiment
from airtune.methods.method import Method
from airtune.methods.views import Delivery
from airtune.wire import Dense


def deliveries(parts, spread):
    made = []
    for client in range(3):
        rng = torch.Generator().manual_seed(client)
        tensors = {
            name: value + spread * torch.randn(value.shape, generator=rng)
            for name, value in parts.model.initial.items()
        }
        made.append(Delivery(client, Dense(tensors), 1 / 3, None, None, 0.0))
    return made


def test_it_starts_from_the_average_and_moves_towards_the_mean_logits(small):
    method = {"name": "feddf", "server_steps": 30}
    parts = build(Experiment(**small(method=method, train={"clip_norm": None})))
    arrived = deliveries(parts, 0.3)
    state = parts.method.start()
    average = Method.aggregate(parts.method, state, arrived)["shared"]
    fused = parts.method.aggregate(state, arrived)["shared"]
    public = parts.method.setup.public

    def probabilities(adapter):
        logits = torch.zeros(len(public), 8)
        for seen in parts.learner.predict(adapter, public):
            logits[torch.from_numpy(seen.positions)] = seen.logits
        return logits

    mean = sum(probabilities(each.payload.tensors) for each in arrived) / 3

    def gap(adapter):
        p = mean.log_softmax(1)
        return float((p.exp() * (p - probabilities(adapter).log_softmax(1))).sum(1).mean())

    assert gap(fused) < 0.5 * gap(average)


def test_without_arrivals_nothing_moves(small):
    parts = build(Experiment(**small(method="feddf")))
    state = parts.method.start()
    lost = [Delivery(0, None, 1.0, None, None, 0.0)]
    after = parts.method.aggregate(state, lost)
    assert all(torch.equal(after["shared"][n], state["shared"][n]) for n in state["shared"])
