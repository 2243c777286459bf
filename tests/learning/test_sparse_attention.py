"""Sparse attention against attention written by hand, with masks made by loops."""

import numpy as np
import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM

from airtune.build import build
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.learning.adapter import AdaptedModel
from airtune.learning.alignment.generation import Request, Sampling, generate
from airtune.learning.alignment.scoring import log_probs, reference_logits
from airtune.learning.backbone import load_backbone
from airtune.learning.config import AdapterConfig, MachineConfig, ModelConfig
from airtune.learning.export import write_adapter
from airtune.learning.learner import Assignment, Learner
from airtune.learning.phase import Phase, supervised
from airtune.learning.sparse_attention import pattern, share_kept

LENGTHS = (19, 23, 11)  # of the texts of a batch
WINDOW, STRIDE = 4, 6
SAMPLING = Sampling(3, 24, ())


def sees(query, key, window, stride):
    """The rule, entry by entry."""
    if key > query:
        return False
    if query - key < window or key == 0:
        return True
    return stride is not None and key % stride == 0


@pytest.mark.parametrize("window", [1, 3, 8, 40])
@pytest.mark.parametrize("stride", [None, 1, 4, 16])
def test_the_share_of_entries_is_counted(window, stride):
    for length in (1, 2, 7, 33):
        entries = [
            [sees(i, j, window, stride) for j in range(length)] for i in range(length)
        ]  # fmt: skip
        places = torch.arange(length).unsqueeze(0)
        assert pattern(places, places, window, stride)[0].tolist() == entries
        kept = sum(map(sum, entries)) / (length * (length + 1) / 2)
        assert share_kept(length, window, stride) == pytest.approx(kept, rel=1e-12)


def by_hand(module, query, key, value, attention_mask, scaling=None, **_):
    """Plain softmax attention, whose mask loops make; right padding is left to the reader."""
    del attention_mask
    groups = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query @ key.transpose(2, 3) * scale
    length, sparse = query.shape[2], module.layer_idx in by_hand.layers
    for i in range(length):
        for j in range(length):
            seen = sees(i, j, WINDOW, by_hand.stride) if sparse else j <= i
            if not seen:
                scores[:, :, i, j] = float("-inf")
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register("by_hand", by_hand)
AttentionMaskInterface.register("by_hand", lambda *_, **__: None)


def batch(pad=0):
    rows = torch.randint(4, 400, (len(LENGTHS), max(LENGTHS)), generator=torch.manual_seed(3))
    mask = torch.zeros_like(rows)
    for row, length in enumerate(LENGTHS):
        mask[row, :length] = 1
    return {"input_ids": rows * mask + pad * (1 - mask), "attention_mask": mask}


def adapted(source, adapter, implementation="sdpa", seed=0):
    backbone = load_backbone(ModelConfig(name=source), "causal", None, torch.device("cpu"))
    backbone.module.config._attn_implementation = implementation
    return AdaptedModel(backbone, AdapterConfig(**adapter), "causal", seed=seed)


@pytest.mark.parametrize("kind", ["Llama", "GPT2", "GPTNeoX"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("top", [1, 2])
def test_logits_are_those_of_attention_by_hand(checkpoint, kind, implementation, top):
    source = checkpoint(kind, causal=True, initializer_range=0.3)
    # Whole layers start as the backbone's, so the model is the plain one but for the pattern.
    options = {"kind": "blocks", "top_layers": top, "attention_window": WINDOW}
    plain = AutoModelForCausalLM.from_pretrained(source, attn_implementation="by_hand").eval()
    found = []
    for by_hand.stride in (STRIDE, None):
        by_hand.layers = range(2 - top, 2)
        model = adapted(source, {**options, "attention_stride": by_hand.stride}, implementation)
        assert (model.prefix is None) == (top == 2)
        for inputs in (batch(), {name: rows[:, :11] for name, rows in batch().items()}):
            with torch.no_grad():
                logits = model.logits(inputs)
                expected = plain(input_ids=inputs["input_ids"]).logits
                if model.prefix is not None:
                    states = {**inputs, "hidden": model.prefix.compute(inputs)}
                    assert torch.allclose(model.logits(states), logits, atol=1e-5)
            real = inputs["attention_mask"].bool()
            assert torch.allclose(logits[real], expected[real], atol=2e-4)
            found.append(logits[real])
    assert not torch.allclose(found[0], found[2], atol=1e-2)  # the stride is seen
    by_hand.layers = ()
    with torch.no_grad():
        dense = plain(input_ids=batch()["input_ids"]).logits
        reference = reference_logits(model, batch())
    real = batch()["attention_mask"].bool()
    assert torch.allclose(reference[real], dense[real], atol=2e-4)  # the backbone stays dense
    assert not torch.allclose(found[2], dense[real], atol=1e-2)


def client(model, number):
    rng = torch.Generator().manual_seed(number)
    return {n: v + 0.1 * torch.randn(v.shape, generator=rng) for n, v in model.initial.items()}


def requests(model, clients=2):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(4, 400, size).tolist() for size in (3, 14, 9)]
    return [Request(client(model, c), prompts, range(3), (c, 0, 0)) for c in range(clients)]


def sampled(model, sampling=SAMPLING, to_the_byte=True):
    """Answers of a cohort, whose log-probabilities are those of a pass over whole answers."""
    own = requests(model)
    together = generate(model, own, sampling, seed=1)
    for one, answers in zip(own, together, strict=True) if to_the_byte else ():
        (alone,) = generate(model, [one], sampling, seed=1)
        assert torch.equal(alone.tokens, answers.tokens)
        assert torch.equal(alone.log_probs, answers.log_probs)
    for one, answers in zip(own, together, strict=True):
        examples = answers.examples(0, 64, token_columns={"old": answers.log_probs})
        found = log_probs(model, examples, one.adapter)
        assert torch.allclose(found, examples.corpus.token_columns["old"], atol=2e-5)
    return own, together


@pytest.mark.parametrize("kind", ["Llama", "GPT2", "GPTNeoX"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_what_is_sampled_behind_a_cache_is_what_training_sees(checkpoint, kind, implementation):
    source = checkpoint(kind, causal=True, initializer_range=0.2)
    sparse = {"attention_window": WINDOW, "attention_stride": STRIDE}
    adapter = {"kind": "bottleneck", "bottleneck": 4}
    model = adapted(source, {**adapter, **sparse}, implementation)
    # Eager products have other last digits in a cohort, dense ones too.
    own, together = sampled(model, to_the_byte=implementation == "sdpa")
    dense = adapted(source, adapter, implementation)
    old = {"old": together[0].log_probs}
    examples = together[0].examples(0, 64, token_columns=old)
    unlike = log_probs(dense, examples, own[0].adapter) - examples.corpus.token_columns["old"]
    assert unlike.abs().max() > 1e-2


def test_the_real_model_samples_what_it_trains_on(shared):
    source = str(shared("models/stories260k"))
    adapter = {"kind": "lora+bottleneck", "rank": 4, "bottleneck": 4, "top_layers": 2}
    model = adapted(source, {**adapter, "attention_window": 8, "attention_stride": 4})
    sampled(model, Sampling(8, 24, ()))


def trained(parts, cohort, gigabytes=1.0):
    machine = MachineConfig(cohort=cohort, prefix_cache_gb=gigabytes)
    learner = Learner(parts.model, parts.learner.config, 0, machine)
    phases = [[Phase(parts.clients.data[c], supervised, 2)] for c in range(5)]
    tasks = [Assignment(c, 1, dict(parts.model.initial), phases[c]) for c in range(5)]
    list(learner.train(tasks))
    return tasks, learner


@pytest.mark.parametrize(
    "adapter",
    [{}, {"top_layers": 1}, {"kind": "blocks", "top_layers": 1}, {"kind": "lora+bottleneck"}],
)
def test_training_is_sparse_and_equal_in_any_cohort(small, adapter):
    sparse = {"attention_window": 3, "attention_stride": 8}
    divided = {"partition": "quantity", "alpha": 0.7}
    parts = build(Experiment(**small("causal", adapter={**adapter, **sparse}, clients=divided)))
    dense = build(Experiment(**small("causal", adapter=adapter, clients=divided)))
    (alone, learner), (together, _) = trained(parts, 1), trained(parts, 5)
    other, plain = trained(dense, 5)
    for one, two, three in zip(alone, together, other, strict=True):
        assert one.losses == two.losses
        assert one.losses != three.losses
        assert all(torch.equal(one.adapter[n], two.adapter[n]) for n in one.adapter)
    data = parts.clients.data[0]
    seen, unseen = (each.evaluate(alone[0].adapter, data).loss for each in (learner, plain))
    assert not np.allclose(seen, unseen, atol=1e-6)
    uncached, _ = trained(parts, 5, 0.0)
    for one, two in zip(alone, uncached, strict=True):
        assert one.losses == pytest.approx(two.losses, abs=1e-5)


def test_a_window_over_everything_changes_nothing(small):
    for adapter in ({}, {"kind": "blocks", "top_layers": 1}):
        dense = build(Experiment(**small("causal", adapter=adapter)))
        wide = build(Experiment(**small("causal", adapter={**adapter, "attention_window": 64})))
        for one, two in zip(trained(dense, 5)[0], trained(wide, 5)[0], strict=True):
            assert one.losses == pytest.approx(two.losses, abs=1e-5)


def test_decoders_that_classify_are_sparse(small, tiny_llama):
    values = small(model={"name": tiny_llama}, adapter={"attention_window": 2})
    parts = build(Experiment(**values))
    dense = build(Experiment(**{**values, "adapter": {"rank": 4}}))
    inputs = batch()
    with torch.no_grad():
        assert not torch.allclose(parts.model.logits(inputs), dense.model.logits(inputs), atol=1e-4)


def test_what_does_not_fit_is_refused_in_a_sentence(small):
    with pytest.raises(UserError, match=r"adapter.attention_window: .* is an encoder"):
        build(Experiment(**small(adapter={"attention_window": 4})))
    with pytest.raises(UserError, match=r"attention_window.*greater than 0"):
        Experiment(**small("causal", adapter={"attention_window": 0}))
    with pytest.raises(UserError, match="attention_stride is what is seen outside a window"):
        Experiment(**small("causal", adapter={"attention_stride": 4}))
    values = small("causal", adapter={"attention_window": 4})
    parts = build(Experiment(**small("causal")))
    parts.backbone.module.config._attn_implementation = "flex_attention"
    try:
        with pytest.raises(UserError, match="mask of all pairs of tokens"):
            build(Experiment(**values))
    finally:
        parts.backbone.module.config._attn_implementation = "sdpa"


def test_an_export_says_that_it_is_dense(tiny_llama, tmp_path):
    options = {"attention_window": 5, "attention_stride": 3}
    model = adapted(tiny_llama, {**options, "kind": "blocks", "top_layers": 1})
    write_adapter(model, model.initial, [], tmp_path)
    said = " ".join((tmp_path / "README.md").read_text().split())
    assert "a window of 5 tokens and tokens 0, 3, 6 ...; loaded so, it sees all tokens" in said
