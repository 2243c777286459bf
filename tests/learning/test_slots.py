"""A slot trains exactly as a run of its own would."""

import numpy as np
import pytest
import torch

from airtune.build import build
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.learning.batches import schedule
from airtune.learning.config import MachineConfig
from airtune.learning.learner import Assignment, Learner
from airtune.learning.phase import Phase, supervised


def trained(parts, cohort, steps, config=None):
    """Train all clients in cohorts of the given size; ``steps`` per client."""
    learner = Learner(parts.model, config or parts.learner.config, 0, MachineConfig(cohort=cohort))
    tasks = [
        Assignment(c, 1, dict(parts.model.initial), [Phase(parts.clients.data[c], supervised, n)])
        for c, n in enumerate(steps)
    ]
    list(learner.train(tasks))
    return tasks


@pytest.mark.parametrize(
    ("task", "optimiser", "adapter"),
    [
        ("classification", "adamw", {}),
        ("classification", "sgd", {}),
        ("causal", "adamw", {}),
        ("causal", "sgd", {}),
        # A vector where else a matrix is: libraries have kernels of their own for those.
        ("classification", "adamw", {"rank": 1}),
        ("causal", "sgd", {"rank": 1}),
        ("classification", "sgd", {"kind": "bottleneck", "bottleneck": 1}),
    ],
)
def test_any_cohort_gives_the_bytes_of_one_by_one_training(small, task, optimiser, adapter):
    # Unequal sizes (batches of unequal rows), lengths and step counts: nothing may leak across.
    parts = build(
        Experiment(
            **small(
                task,
                adapter=adapter,
                clients={"partition": "quantity", "alpha": 0.7},
                train={"optimiser": optimiser, "weight_decay": 0.1, "batch_size": 16},
            )
        )
    )
    steps = [3, 1, 4, 0, 3]
    alone = trained(parts, 1, steps)
    assert len({len(data) for data in parts.clients.data}) > 1
    for cohort in (2, 5):
        together = trained(parts, cohort, steps)
        for one, other in zip(alone, together, strict=True):
            assert (one.loss, one.tokens) == (other.loss, other.tokens)
            assert one.gradient_norms == other.gradient_norms
            assert len(one.gradient_norms) == steps[one.client]
            for name, tensor in one.adapter.items():
                assert torch.equal(tensor, other.adapter[name]), name


def test_training_equals_a_plain_peft_loop(small, tiny_llama):
    """The oracle knows nothing of slots: peft's own model, torch's own clipping and optimiser."""
    import peft
    from transformers import AutoModelForCausalLM

    parts = build(Experiment(**small("causal", train={"clip_norm": 0.05})))
    (task,) = trained(parts, 1, [4])[:1]

    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=16)).eval()
    prefix = "base_model.model."
    weights = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    for name, parameter in weights.items():
        key = name.removeprefix(prefix).replace(".default", "")
        parameter.data.copy_(parts.model.initial[key])
    optimiser = torch.optim.AdamW(weights.values(), lr=1e-2, weight_decay=0.0)
    from airtune import keyed

    data = parts.clients.data[0]
    order = np.concatenate(
        [(rng := keyed.generator(0, "batches", 1, 0, 0)).permutation(len(data))]
        + [rng.permutation(len(data)) for _ in range(3)]
    )
    norms = []
    for step in range(4):
        batch = data.batch(order[8 * step : 8 * step + 8])
        # transformers shifts and averages by itself; -100 marks the prompt and the padding.
        loss = model(**batch).loss
        optimiser.zero_grad()
        loss.backward()
        norms.append(float(torch.cat([p.grad.flatten() for p in weights.values()]).norm()))
        torch.nn.utils.clip_grad_norm_(weights.values(), 0.05)
        optimiser.step()
    for name, parameter in weights.items():
        key = name.removeprefix(prefix).replace(".default", "")
        assert torch.allclose(parameter, task.adapter[key], atol=2e-6), name
    assert min(norms) > 0.05  # so it is the norm before clipping that is kept
    assert task.gradient_norms == pytest.approx(norms, rel=1e-4)
    assert task.gradient_norm == pytest.approx(np.mean(norms), rel=1e-4)


def test_a_client_whose_loss_is_nan_harms_only_itself(small):
    parts = build(Experiment(**small()))
    healthy = trained(parts, 5, [2] * 5)

    def poisoned(step):
        losses = supervised(step)
        # The slot whose first text is client 3's first text turns NaN, with gradients to match.
        marks = step.batch["input_ids"].view(step.slots, -1)[:, :8]
        return losses * torch.where((marks == mark).all(1), float("nan"), 1.0)

    learner = Learner(parts.model, parts.learner.config, 0, MachineConfig(cohort=5))
    tasks = [
        Assignment(c, 1, dict(parts.model.initial), [Phase(parts.clients.data[c], poisoned, 2)])
        for c in range(5)
    ]
    data = parts.clients.data[3]
    first = schedule(data, 2, 8, seed=0, round=1, client=3, phase=0)
    mark = data.corpus.batch(first.rows[0], int(first.lengths[0]))["input_ids"].view(-1)[:8]
    list(learner.train(tasks))
    assert [task.diverged for task in tasks] == [False, False, False, True, False]
    for one, other in zip(healthy, tasks, strict=True):
        if one.client != 3:
            assert all(torch.equal(one.adapter[n], other.adapter[n]) for n in one.adapter)


def test_a_kind_without_linear_weights_falls_back_to_one_client_at_a_time(small):
    parts = build(Experiment(**small("causal", adapter={"kind": "ia3"})))
    assert not parts.model.slots.stacked
    tasks = trained(parts, 5, [2] * 5)
    moved = [
        max((task.adapter[n] - parts.model.initial[n]).abs().max() for n in task.adapter)
        for task in tasks
    ]
    assert all(change > 0 for change in moved)


def test_phases_train_only_what_they_name(small):
    parts = build(Experiment(**small()))
    phases = [Phase(parts.clients.data[0], supervised, 2, ("classifier.*",))]
    task = Assignment(0, 1, dict(parts.model.initial), phases)
    list(parts.learner.train([task]))
    changed = {n for n in task.adapter if not torch.equal(task.adapter[n], parts.model.initial[n])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_phases_follow_one_another_as_they_would_alone(small):
    """Each phase has its own tensors, steps and a fresh optimiser; slots must not mix them up."""
    parts = build(Experiment(**small(train={"weight_decay": 0.1})))

    def run(cohort):
        learner = Learner(parts.model, parts.learner.config, 0, MachineConfig(cohort=cohort))
        tasks = []
        for client in range(5):
            data = parts.clients.data[client]
            phases = [
                Phase(data, supervised, 2, ("classifier.*",)),
                Phase(data, supervised, 1 + client % 3, ("*lora_*",)),
                Phase(data, supervised, 2),
            ]
            tasks.append(Assignment(client, 1, dict(parts.model.initial), phases))
        list(learner.train(tasks))
        return tasks

    alone, together = run(1), run(5)
    for one, other in zip(alone, together, strict=True):
        assert len(one.losses) == 5 + one.client % 3
        assert one.losses == other.losses
        assert all(torch.equal(one.adapter[n], other.adapter[n]) for n in one.adapter)


def test_a_model_that_adapts_more_than_its_rows_trains_one_by_one(small, checkpoint):
    """DeBERTa sends its relative positions, which belong to no client, through the adapters."""
    options = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True}
    name = checkpoint("DebertaV2", **options)
    for adapter in ({"rank": 4}, {"rank": 4, "top_layers": 1}):
        parts = build(Experiment(**small(model={"name": name}, adapter=adapter)))
        assert parts.model.slots.stacked
        assert not parts.model.side_by_side
        alone, together = trained(parts, 1, [2] * 5), trained(parts, 5, [2] * 5)
        for one, other in zip(alone, together, strict=True):
            assert all(torch.equal(one.adapter[n], other.adapter[n]) for n in one.adapter)
    assert build(Experiment(**small())).model.side_by_side


def test_what_is_adapted_below_the_layers_trains_too(small, checkpoint):
    name = checkpoint("Electra", embedding_size=16)
    targets = ["embeddings_project", "encoder.layer.1.attention.self.query"]
    parts = build(Experiment(**small(model={"name": name}, adapter={"targets": targets})))
    assert parts.model.prefix is None
    (task,) = trained(parts, 1, [3])[:1]
    below = [name for name in task.adapter if "embeddings_project" in name]
    assert len(below) == 2
    assert all(not torch.equal(task.adapter[n], parts.model.initial[n]) for n in below)


def test_top_layers_of_a_model_whose_layers_are_one_is_said(small, checkpoint):
    name = checkpoint("Albert")
    with pytest.raises(UserError, match=r"adapter.targets or top_layers: "):
        build(Experiment(**small(model={"name": name}, adapter={"top_layers": 1})))


def test_an_adapted_embedding_trains_one_by_one(small):
    targets = ["word_embeddings", "query"]
    parts = build(Experiment(**small(adapter={"targets": targets, "rank": 4})))
    assert not parts.model.side_by_side
    task = trained(parts, 5, [3] * 5)[0]
    changed = [n for n in task.adapter if not torch.equal(task.adapter[n], parts.model.initial[n])]
    assert any("word_embeddings" in name for name in changed)
    assert any("query" in name for name in changed)


def test_a_backbone_is_loaded_once_and_never_changed(small):
    first, second = build(Experiment(**small())), build(Experiment(**small(adapter={"rank": 2})))
    inner = [parts.backbone.module.backbone for parts in (first, second)]
    assert inner[0] is inner[1]
    before = {name: tensor.clone() for name, tensor in inner[0].state_dict().items()}
    trained(first, 5, [2] * 5)
    assert all(torch.equal(before[name], tensor) for name, tensor in inner[0].state_dict().items())
    assert not any("lora" in name for name in inner[0].state_dict())


def test_generate_works_with_a_slot_per_client(small):
    parts = build(Experiment(**small("causal")))
    tasks = trained(parts, 5, [4] * 5)
    prompt = parts.clients.data[0].batch(np.arange(1))["input_ids"][:, :5]
    alone = []
    for task in tasks:
        parts.model.slots.load([task.adapter])
        alone.append(
            parts.model.module.generate(input_ids=prompt, max_new_tokens=6, do_sample=False)
        )
    parts.model.slots.load([task.adapter for task in tasks])
    together = parts.model.module.generate(
        input_ids=prompt.repeat(5, 1), max_new_tokens=6, do_sample=False
    )
    width = max(tokens.shape[1] for tokens in alone)
    for row, tokens in zip(together, alone, strict=True):
        padded = torch.nn.functional.pad(tokens[0], (0, width - tokens.shape[1]))
        assert torch.equal(row[: tokens.shape[1]], padded[: tokens.shape[1]])
