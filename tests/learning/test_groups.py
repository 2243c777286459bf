"""Bottlenecks and whole layers train in slots as they would alone, and as in plain torch."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from airtune import keyed
from airtune.build import build
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.learning.config import MachineConfig
from airtune.learning.learner import Assignment, Learner
from airtune.learning.phase import Phase, supervised

BOTTLENECK = {"kind": "bottleneck", "bottleneck": 4}
BESIDE = {"kind": "lora+bottleneck", "bottleneck": 4, "bottleneck_bias": False}
BLOCKS = {"kind": "blocks", "top_layers": 1}
KINDS = [BOTTLENECK, BESIDE, BESIDE | {"top_layers": 1}, BLOCKS]
every_kind = pytest.mark.parametrize("adapter", KINDS, ids=lambda a: "-".join(map(str, a.values())))


def trained(parts, cohort, steps, trains=("*",), cache=1.0):
    """Train all clients in cohorts of the given size; ``steps`` per client."""
    machine = MachineConfig(cohort=cohort, prefix_cache_gb=cache)
    learner = Learner(parts.model, parts.learner.config, 0, machine)
    tasks = [
        Assignment(
            c, 1, dict(parts.model.initial), [Phase(parts.clients.data[c], supervised, n, trains)]
        )
        for c, n in enumerate(steps)
    ]
    list(learner.train(tasks))
    return tasks


def batches(data, steps):
    """The batches of eight that client 0 has in round 1, drawn as its schedule draws them."""
    rng = keyed.generator(0, "batches", 1, 0, 0)
    order = np.concatenate([rng.permutation(len(data)) for _ in range(steps)])
    return [data.batch(order[8 * step : 8 * step + 8]) for step in range(steps)]


def plain_loop(model, weights, data, steps=4):
    """Train ``weights`` of a transformers model by torch's own means."""
    optimiser = torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.0)
    for batch in batches(data, steps):
        loss = model(**batch).loss
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 0.5)
        optimiser.step()


@every_kind
@pytest.mark.parametrize("task", ["classification", "causal"])
def test_any_cohort_gives_the_bytes_of_one_by_one_training(small, task, adapter):
    parts = build(
        Experiment(
            **small(
                task,
                adapter=adapter,
                clients={"partition": "quantity", "alpha": 0.7},
                train={"weight_decay": 0.1, "batch_size": 16},
            )
        )
    )
    assert parts.model.side_by_side
    assert (parts.model.prefix is not None) == ("top_layers" in adapter)
    steps = [3, 1, 4, 0, 3]
    alone = trained(parts, 1, steps)
    for cohort in (2, 5):
        for one, other in zip(alone, trained(parts, cohort, steps), strict=True):
            assert one.losses == other.losses
            assert one.gradient_norms == other.gradient_norms
            for name, tensor in one.adapter.items():
                assert torch.equal(tensor, other.adapter[name]), name
    moved = [not torch.equal(t, parts.model.initial[n]) for n, t in alone[2].adapter.items()]
    assert all(moved)


@every_kind
@pytest.mark.parametrize("task", ["classification", "causal"])
def test_the_start_is_the_backbone_which_stays_as_it_is(small, task, adapter):
    parts = build(Experiment(**small(task, adapter=adapter)))
    before = {n: t.clone() for n, t in parts.backbone.module.state_dict().items()}
    batch = parts.clients.data[0].batch(np.arange(4))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    parts.model.slots.load([parts.model.initial])
    with torch.no_grad():
        ours, plain = parts.model.logits(inputs), parts.backbone.module(**inputs).logits
    assert torch.allclose(ours, plain, atol=1e-6)
    if adapter["kind"] != "blocks":  # their products are batched, and round as such
        assert torch.equal(ours, plain)
    trained(parts, 5, [2] * 5)
    after = parts.backbone.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert before.keys() == after.keys()


def test_the_first_values_are_those_of_the_seed(small):
    def initial(**sections):
        return build(Experiment(**small(adapter=BOTTLENECK, **sections))).model.initial

    one, same, other = initial(), initial(), initial(seed=1)
    downs = [name for name in one if name.endswith("bottleneck.down.weight")]
    assert len(downs) == 4
    for name in downs:
        assert torch.equal(one[name], same[name])
        assert not torch.equal(one[name], other[name])
    assert torch.cat([one[n].flatten() for n in downs]).std() == pytest.approx(0.02, rel=0.15)
    rest = [n for n in one if "bottleneck" in n and n not in downs]
    assert len(rest) == 12
    assert not any(one[name].any() for name in rest)
    assert {n.rpartition(".bottleneck")[0] for n in downs} == {
        f"backbone.encoder.layer.{i}.{end}"
        for i in (0, 1)
        for end in ("attention.output.dense", "output.dense")
    }


def bert_by_hand(model, tensors, ids, mask):
    """BERT's forward written out, with bottlenecks before its two residual sums of each layer."""

    def narrowed(u, path):
        w = {k: tensors[f"{path}.bottleneck.{k}"] for k in ("down.weight", "up.weight")}
        b = {k: tensors[f"{path}.bottleneck.{k}"] for k in ("down.bias", "up.bias")}
        z = u @ w["down.weight"].T + b["down.bias"]
        z = 0.5 * z * (1 + torch.erf(z / 2**0.5))
        return u + z @ w["up.weight"].T + b["up.bias"]

    inner = model.backbone
    x = inner.embeddings(input_ids=ids)
    hide = torch.where(mask[:, None, None, :] > 0, 0.0, -torch.inf)
    for i, layer in enumerate(inner.encoder.layer):
        path = f"backbone.encoder.layer.{i}"
        parts = [getattr(layer.attention.self, name)(x) for name in ("query", "key", "value")]
        q, k, v = (p.view(*p.shape[:2], 2, 16).transpose(1, 2) for p in parts)
        weights = (q @ k.mT / 4.0 + hide).softmax(-1)
        u = layer.attention.output.dense((weights @ v).transpose(1, 2).flatten(2))
        u = narrowed(u, f"{path}.attention.output.dense")
        x = layer.attention.output.LayerNorm(x + u)
        u = layer.output.dense(nn.functional.gelu(layer.intermediate.dense(x)))
        x = layer.output.LayerNorm(x + narrowed(u, f"{path}.output.dense"))
    pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    pooled = nn.functional.normalize(pooled, dim=-1) * 32**0.5
    return pooled @ tensors["classifier.weight"].T + tensors["classifier.bias"]


def test_a_bottleneck_is_the_formula_behind_both_output_projections(small):
    parts = build(Experiment(**small(adapter=BOTTLENECK, train={"clip_norm": 0.5})))
    data = parts.clients.data[0]
    tensors = {n: t.clone().requires_grad_() for n, t in parts.model.initial.items()}
    heads = [tensors[name] for name in parts.model.head_names]
    others = [t for n, t in tensors.items() if n not in parts.model.head_names]
    optimiser = torch.optim.AdamW(
        [{"params": others}, {"params": heads}], lr=1e-2, weight_decay=0.0
    )
    for batch in batches(data, 4):
        logits = bert_by_hand(
            parts.backbone.module, tensors, batch["input_ids"], batch["attention_mask"]
        )
        optimiser.zero_grad()
        nn.functional.cross_entropy(logits, batch["labels"]).backward()
        nn.utils.clip_grad_norm_(list(tensors.values()), 0.5)
        optimiser.step()
    (task,) = trained(parts, 1, [4])
    for name, tensor in tensors.items():
        assert torch.allclose(tensor, task.adapter[name], atol=1e-5), name
    assert all(t.detach().any() for n, t in tensors.items() if "up." in n)


def by_hook(own, module, args, u):
    down, down_bias, up, up_bias = own
    return u + nn.functional.gelu(u @ down.T + down_bias) @ up.T + up_bias


@pytest.mark.parametrize("rank", [None, 2])
def test_a_decoders_bottlenecks_train_as_hooks_on_the_plain_model_do(small, tiny_llama, rank):
    """The oracle has its own hooks, and peft's LoRA where it stands beside."""
    import peft
    from transformers import AutoModelForCausalLM

    adapter = {"kind": "bottleneck" if rank is None else "lora+bottleneck", "bottleneck": 4}
    adapter |= {"targets": ["o_proj"], "rank": rank} if rank else {}
    parts = build(Experiment(**small("causal", adapter=adapter, train={"clip_norm": 0.5})))
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    model.requires_grad_(False)
    if rank:
        lora = peft.LoraConfig(r=rank, lora_alpha=16, target_modules=["o_proj"])
        model = peft.get_peft_model(model, lora).eval()
    weights = {}
    for name, parameter in model.named_parameters():
        if "lora" in name:
            key = name.removeprefix("base_model.model.").replace(".default", "")
            parameter.data.copy_(parts.model.initial[key])
            weights[key] = parameter
    layers = model.get_base_model().model.layers if rank else model.model.layers
    for i, layer in enumerate(layers):
        for place, owner in (
            ("self_attn.o_proj", layer.self_attn.o_proj),
            ("mlp.down_proj", layer.mlp.down_proj),
        ):
            path = f"model.layers.{i}.{place}.bottleneck."
            own = {
                path + end: parts.model.initial[path + end].clone().requires_grad_()
                for end in ("down.weight", "down.bias", "up.weight", "up.bias")
            }
            weights |= own

            owner.register_forward_hook(partial(by_hook, list(own.values())))
    assert weights.keys() == parts.model.initial.keys()
    plain_loop(model, list(weights.values()), parts.clients.data[0])
    (task,) = trained(parts, 1, [4])
    for name, tensor in weights.items():
        assert torch.allclose(tensor, task.adapter[name], atol=1e-5), name


@pytest.mark.parametrize("kind", ["Llama", "GPT2", "Mixtral", "Bert"])
def test_blocks_train_as_the_last_layers_of_a_plain_model_do(small, checkpoint, kind):
    """Mixtral's experts have no form with slots, so there one client trains at a time."""
    import transformers

    task = "classification" if kind == "Bert" else "causal"
    folder = checkpoint(kind, task == "causal")
    train = {"clip_norm": 0.5, "head_learning_rate": 1e-2}
    model = {"name": folder, "pooling": "native"}
    parts = build(Experiment(**small(task, adapter=BLOCKS, model=model, train=train)))
    assert parts.model.slots.stacked == (kind != "Mixtral")
    loader = {
        "causal": "AutoModelForCausalLM",
        "classification": "AutoModelForSequenceClassification",
    }
    options = {"num_labels": len(parts.table.classes)} if task == "classification" else {}
    plain = (
        getattr(transformers, loader[task])
        .from_pretrained(folder, dtype=torch.float32, **options)
        .eval()
    )
    weights = {n: p for n, p in plain.named_parameters() if n in parts.model.initial}
    assert weights.keys() == parts.model.initial.keys()
    inside = [n for n in weights if "1" in n.split(".")]  # of the second of two layers
    assert inside == [n for n, _ in plain.named_parameters() if ".1." in n]
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(name in weights)
        if name in weights:
            parameter.data.copy_(parts.model.initial[name])
    plain_loop(plain, list(weights.values()), parts.clients.data[0])
    tasks = trained(parts, 5, [4] * 5)
    for name, parameter in weights.items():
        seen = torch.ones_like(parameter)
        if name.endswith(("c_attn.bias", "key.bias")):
            # A key's bias shifts all scores of a query alike: its gradient is rounding, which Adam
            # makes large.
            seen[slice(32, 64) if "c_attn" in name else slice(32)] = 0.0
        assert torch.allclose(parameter * seen, tasks[0].adapter[name] * seen, atol=2e-5), name
    for one, other in zip(trained(parts, 1, [4] * 5), tasks, strict=True):
        assert all(torch.equal(one.adapter[n], other.adapter[n]) for n in one.adapter)


@every_kind
def test_phases_and_private_patterns_take_groups_by_name(small, adapter):
    pattern = "*.layer.1.output.*" if adapter["kind"] == "blocks" else "*bottleneck*"
    method = {"name": "fedavg", "private": [pattern]}
    parts = build(Experiment(**small(adapter=adapter, method=method)))
    named = {
        n for n in parts.model.initial if ("bottleneck" if "*b" in pattern else ".1.output.") in n
    }
    assert 0 < len(named) < len(parts.model.initial)
    assert set(parts.method.shared(parts.model.initial)) == parts.model.initial.keys() - named
    # The head starts at zero, and `up` too: nothing comes back through them in the first steps.
    (task, *_) = trained(parts, 5, [3] * 5, trains=(pattern, "classifier.*"))
    changed = {n for n in task.adapter if not torch.equal(task.adapter[n], parts.model.initial[n])}
    assert changed == named | {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("adapter", [BESIDE | {"top_layers": 1}, BLOCKS], ids=lambda a: a["kind"])
@pytest.mark.parametrize("task", ["classification", "causal"])
def test_a_frozen_prefix_changes_nothing(small, task, adapter):
    parts = build(Experiment(**small(task, adapter=adapter)))
    for one, other in zip(
        trained(parts, 3, [4] * 5, cache=0.0), trained(parts, 3, [4] * 5), strict=True
    ):
        assert one.losses == pytest.approx(other.losses, abs=1e-5)
        assert all(torch.allclose(t, other.adapter[n], atol=1e-5) for n, t in one.adapter.items())


@every_kind
@pytest.mark.parametrize("pooling", ["auto", "native"])
def test_a_bfloat16_backbone_trains_float32_tensors(small, adapter, pooling):
    half, full = (
        build(Experiment(**small(adapter=adapter, model={"dtype": dtype, "pooling": pooling})))
        for dtype in ("bfloat16", "float32")
    )
    assert {p.dtype for n, p in half.backbone.module.named_parameters() if ".layer." in n} == {
        torch.bfloat16
    }
    tasks, exact = trained(half, 5, [8] * 5), trained(full, 5, [8] * 5)
    for one, other in zip(tasks, exact, strict=True):
        assert np.mean(one.losses) == pytest.approx(np.mean(other.losses), rel=0.05)
        for name, tensor in one.adapter.items():
            assert tensor.dtype == torch.float32
            assert not torch.equal(tensor, half.model.initial[name]), name


def test_layers_without_slots_train_on_a_bfloat16_backbone_too(small, checkpoint):
    model = {"name": checkpoint("Mixtral", causal=True)}
    losses = []
    for dtype in ("bfloat16", "float32"):
        parts = build(Experiment(**small("causal", adapter=BLOCKS, model=model | {"dtype": dtype})))
        assert not parts.model.slots.stacked
        (task, *_) = trained(parts, 5, [4] * 5)
        losses.append(np.mean(task.losses))
        assert all(tensor.dtype == torch.float32 for tensor in task.adapter.values())
        assert not any(torch.equal(t, parts.model.initial[n]) for n, t in task.adapter.items())
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("Bert", {"pooling": "native"}),
        ("Roberta", {}),
        ("GPT2", {}),
        ("Bert", {"pooling": "mean"}),
        ("Bert", {"pooling": "mean", "prototypes": 2}),
    ],
    ids=str,
)
def test_the_head_trains_as_it_does_beside_lora(small, checkpoint, kind, model):
    model = {"name": checkpoint(kind), **model}
    heads = []
    for adapter in ({}, BOTTLENECK, BLOCKS):
        parts = build(Experiment(**small(adapter=adapter, model=model))).model
        rest = {n for n in parts.initial if "lora" not in n and "bottleneck" not in n}
        heads.append({n for n in rest if ".1." not in n})
        assert set(parts.head_names) <= heads[-1]
    assert heads[0] == heads[1] == heads[2]
    assert bool(heads[0]) == ("prototypes" not in model)


@pytest.mark.parametrize(
    ("adapter", "sentence"),
    [
        ({"bottleneck": 8}, r"adapter: bottleneck is for kinds bottleneck and lora\+bottleneck"),
        ({"kind": "ia3", "bottleneck_bias": False}, "bottleneck_bias is for kinds bottleneck"),
        ({"kind": "blocks"}, r"say how many, such as top_layers: 2"),
        ({"kind": "bottleneck", "targets": ["query"]}, "leave targets out, or use lora.bottleneck"),
        ({"kind": "blocks", "top_layers": 1, "targets": ["query"]}, "leave targets out"),
        ({"kind": "bottleneck", "bottleneck": 0}, "adapter.bottleneck: .*greater than 0"),
        ({"kind": "bottleneck", "top_layers": 3}, "adapter.top_layers: 3 asked for.*2 layers"),
        ({"kind": "blocks", "top_layers": 3}, "adapter.top_layers: 3 asked for.*2 layers"),
        ({"kind": "lora+bottleneck", "targets": ["word_embeddings"]}, "'.*embeddings' is none"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_refused(small, adapter, sentence):
    with pytest.raises(UserError, match=sentence):
        build(Experiment(**small(adapter=adapter)))


def test_a_width_has_a_default_where_there_are_bottlenecks(small):
    adapter = Experiment(**small(adapter={"kind": "bottleneck", "bottleneck": None})).adapter
    assert (adapter.bottleneck, adapter.bottleneck_bias) == (16, True)
    assert Experiment(**small()).adapter.bottleneck is None


@pytest.mark.parametrize(
    ("adapter", "sentence"),
    [
        ({"rank": 10**10}, r"adapter.rank: 10000000000 is above the width 32 of '.*query'"),
        (
            {"rank": 10**10, "targets": ["word_embeddings"]},
            r"adapter.rank: 10000000000 is above the width 32 of '.*word_embeddings'",
        ),
        ({"kind": "lora+bottleneck", "rank": 10**10}, "adapter.rank: .* above the width 32"),
        (BOTTLENECK | {"bottleneck": 10**10}, "adapter.bottleneck: 10000000000 is above .*32"),
        (BESIDE | {"bottleneck": 33}, "adapter.bottleneck: 33 is above the model's width 32"),
    ],
    ids=str,
)
def test_what_is_wider_than_the_model_is_refused_before_it_takes_memory(small, adapter, sentence):
    """A factor of 1.3 TB would raise another error."""
    with pytest.raises(UserError, match=sentence):
        build(Experiment(**small(adapter=adapter)))


@pytest.mark.parametrize(
    ("kind", "adapter", "sentence"),
    [
        ("Albert", BOTTLENECK, r"needs a list of the model's 2 layers, .*use lora"),
        ("Albert", BLOCKS, r"needs a list of the model's 2 layers, .*use lora"),
        ("Mixtral", BOTTLENECK, r"'model.layers.0' of .* of width 32 ends the MLP .*use lora"),
    ],
)
def test_models_without_such_places_are_refused(small, checkpoint, kind, adapter, sentence):
    folder = checkpoint(kind)
    with pytest.raises(UserError, match=rf"adapter.kind: .*{sentence}"):
        build(Experiment(**small(adapter=adapter, model={"name": folder})))


@pytest.mark.parametrize(
    ("kind", "ends"),
    [
        ("GPT2", ("attn.c_proj", "mlp.c_proj")),
        ("DistilBert", ("attention.out_lin", "ffn.lin2")),
        ("GPTNeoX", ("attention.dense", "mlp.dense_4h_to_h")),
        ("ModernBert", ("attn.Wo", "mlp.Wo")),
    ],
)
def test_places_are_found_in_models_of_any_kind(small, checkpoint, kind, ends):
    folder = checkpoint(kind)
    parts = build(Experiment(**small(adapter=BOTTLENECK, model={"name": folder})))
    downs = [n for n in parts.model.initial if n.endswith("bottleneck.down.weight")]
    wanted = [f".{i}.{end}.bottleneck.down.weight" for i in (0, 1) for end in ends]
    assert len(downs) == len(wanted)
    assert all(name.endswith(end) for name, end in zip(downs, wanted, strict=True))
    (task, *_) = trained(parts, 5, [2] * 5)
    assert not any(torch.equal(t, parts.model.initial[n]) for n, t in task.adapter.items())
