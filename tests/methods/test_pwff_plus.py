"""PWFF+: the line through preferences is least squares, and clients start from their places."""

import numpy as np
import pytest
import torch

from airtune.build import build
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.methods.pwff_plus import on_line
from airtune.methods.views import Delivery
from airtune.scheduling.plan import Plan
from airtune.wire import Dense, WireError, encode

ANSWERS = {"prompts": 2, "samples": 4, "tokens": 6}
PLUS = {
    "name": "pwff_plus", "turning": ["*"], "answers": ANSWERS,
    "examined": {"prompts": 4, "samples": 1, "tokens": 4},
}  # fmt: skip


@pytest.fixture
def talk(execute):
    """Function that runs a method on the built-in topics."""

    def run(method, **sections):
        train = {"rounds": 2, "evaluate_every": 9} | sections.pop("train", {})
        return execute(method, task="topics", cell="ideal", train=train, **sections)

    return run


def deliver(state, places, weights, updates):
    """Uploads that moved from their places on the line by these updates."""
    found = []
    for client, (a, weight, move) in enumerate(zip(places, weights, updates, strict=True)):
        tensors = {
            name: state["shared"][name] + (a - 0.5) * state["slope"][name] + move[name]
            for name in state["shared"]
        }
        payload = Dense({**tensors, "preference": torch.tensor([a])}, "float32")
        found.append(Delivery(client, payload, weight, None, None, 1.0))
    return found


@pytest.mark.parametrize("places", [[0.0, 0.3, 1.0, 0.9], [0.7, 0.7, 0.7, 0.7], [0.2]])
def test_the_line_is_least_squares_of_what_arrived(talk, places):
    parts, progress, _ = talk(PLUS | {"ridge": 0.05})
    state, rng = progress._state, np.random.default_rng(0)
    weights = rng.uniform(0.1, 1.0, len(places))
    updates = [
        {n: torch.from_numpy(rng.normal(size=t.shape)).float() for n, t in state["shared"].items()}
        for _ in places
    ]
    found = parts.method.aggregate(state, deliver(state, places, weights, updates))
    share = weights / weights.sum()
    rows = (
        np.stack([np.ones(len(places)), np.array(places) - 0.5], axis=1) * np.sqrt(share)[:, None]
    )
    rows = np.vstack([rows, [[0.0, np.sqrt(0.05)]]])
    for name, before in state["shared"].items():
        moved = np.stack([u[name].numpy().ravel() for u in updates]) * np.sqrt(share)[:, None]
        moved = np.vstack([moved, np.zeros((1, moved.shape[1]))])
        mean, slope = np.linalg.lstsq(rows, moved, rcond=None)[0]
        assert np.allclose((found["shared"][name] - before).numpy().ravel(), mean, atol=1e-5)
        turned = found["slope"][name] - state["slope"][name]
        assert np.allclose(turned.numpy().ravel(), slope, atol=1e-5)


def test_nothing_arrived_changes_nothing(talk):
    parts, progress, _ = talk(PLUS, train={"rounds": 1})
    lost = [Delivery(0, None, 1.0, None, None, 1.0)]
    found = parts.method.aggregate(progress._state, lost)
    for part in ("shared", "slope"):
        for name, tensor in progress._state[part].items():
            assert torch.equal(found[part][name], tensor)


def test_clients_have_their_places_and_the_slope_turns(talk):
    parts, progress, rows = talk(PLUS)
    message = encode(parts.method.broadcast(progress._state, Plan(3, {}, {})))
    state = progress._state
    assert any(bool(t.any()) for t in state["slope"].values())
    for client, a in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        own = parts.clients.personal_adapter(client, 3, message)
        for name, mean in state["shared"].items():
            expected = mean + (a - 0.5) * state["slope"][name]
            assert torch.allclose(own[name], expected, atol=1e-6), name
    line = {"x": torch.ones(2), "slope/x": torch.tensor([2.0, 4.0])}
    assert on_line(line, 0.25)["x"].tolist() == [0.5, 0.0]
    up = {row["bits"] for row in rows if row["row"] == "upload"}
    down = {row["bits"] for row in rows if row["row"] == "broadcast"}
    assert len(up) == len(down) == 1
    assert 1.8 < down.pop() / up.pop() < 2.2


def test_held_by_a_large_ridge_it_is_averaging_of_own_weights(talk):
    _, line, _ = talk(PLUS | {"ridge": 1e12, "weights": "fixed"})
    _, mean, _ = talk(
        {k: v for k, v in PLUS.items() if k != "turning"} | {"name": "pwff", "private": []}
    )
    for name, tensor in mean.adapter.items():
        assert torch.allclose(line.adapter[name], tensor, atol=1e-5), name


def test_only_what_turns_has_a_slope_and_learns_for_own_weights(talk):
    beside = {"kind": "lora+bottleneck", "bottleneck": 4, "rank": 4}
    method = {key: value for key, value in PLUS.items() if key != "turning"}
    parts, progress, _ = talk(method, adapter=beside)
    names = set(progress._state["slope"])
    assert names == {name for name in parts.model.initial if ".lora_" in name}
    weighing = parts.method._objective().weighing
    assert (weighing.rule, weighing.common) == ("split", 0.5)
    assert weighing.private == ("*.lora_*",)
    own = parts.method._turns(parts.model.initial)
    assert 0 < len(own) < len(parts.model.initial)
    # What does not turn is averaged, by examples.
    state = progress._state
    moves = [{name: float(place) for name in state["shared"]} for place in (1, 4)]
    line = {**state, "slope": {n: state["slope"].get(n, torch.zeros(())) for n in state["shared"]}}
    found = parts.method.aggregate(state, deliver(line, [0.1, 0.8], [0.25, 0.75], moves))
    for name, before in state["shared"].items():
        if name not in names:
            assert torch.allclose(found["shared"][name], before + 3.25, atol=1e-5), name


def test_patterns_under_which_nothing_turns_are_refused(small):
    values = small(task="topics", method=PLUS | {"turning": ["*.ia3_*"]})
    with pytest.raises(UserError, match=r"method.turning: no shared tensor"):
        build(Experiment(**values))


def test_a_preference_out_of_range_is_refused(talk):
    parts, progress, _ = talk(PLUS, train={"rounds": 1})
    (delivery,) = deliver(progress._state, [1.5], [1.0], [dict.fromkeys(parts.model.initial, 0.0)])
    with pytest.raises(WireError, match="no preference"):
        parts.method.accept(progress._state, delivery.payload)
