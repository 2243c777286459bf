"""Generated answers against passes without a cache, transformers' generate and runs alone."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from airtune.errors import UserError
from airtune.learning.adapter import AdaptedModel
from airtune.learning.alignment.generation import Request, Sampling, generate, pick, uniforms
from airtune.learning.alignment.scoring import log_probs, reference_logits, sums
from airtune.learning.backbone import load_backbone
from airtune.learning.config import AdapterConfig, ModelConfig

STOP = 7
PROMPTS = [[1, 20, 30], [1, 44, 5, 60, 71], [1, 9], [1, 33, 34, 35, 36, 37, 38, 39, 40, 41]]


@pytest.fixture(scope="module")
def model(tiny_llama):
    backbone = load_backbone(ModelConfig(name=tiny_llama), "causal", None, torch.device("cpu"))
    return AdaptedModel(backbone, AdapterConfig(rank=4), "causal", seed=0)


def adapter(model, client):
    """An adapter that changes predictions a lot: all of its tensors are random."""
    rng = torch.Generator().manual_seed(client)
    return {n: 0.5 * torch.randn(v.shape, generator=rng) for n, v in model.initial.items()}


def request(model, client, prompts=PROMPTS[:3]):
    return Request(adapter(model, client), prompts, range(len(prompts)), (client, 3, 0))


def plain(model, client):
    """The backbone with a client's adapter merged into its weights, as transformers has it."""
    merged = AutoModelForCausalLM.from_pretrained(model.backbone.source, dtype=torch.float32).eval()
    own = adapter(model, client)
    with torch.no_grad():
        for name, a in own.items():
            if name.endswith(".lora_A.weight"):
                b = own[name.replace("lora_A", "lora_B")]
                weight = merged.get_parameter(name.replace(".lora_A", ""))
                weight += model.scale * b @ a
    return merged


def test_log_probabilities_equal_those_of_a_pass_without_a_cache(model):
    sampling = Sampling(4, 12, (STOP,), temperature=0.8)
    (answers,) = generate(model, [request(model, 1, PROMPTS)], sampling, seed=0)
    examples = answers.examples(0, 64, token_columns={"old": answers.log_probs})
    found = log_probs(model, examples, adapter(model, 1), temperature=0.8)
    assert found.any()
    assert torch.allclose(found, examples.corpus.token_columns["old"], atol=1e-5)
    merged = plain(model, 1)
    for row in (0, 7, 15):
        ids = [*PROMPTS[row // 4], *answers.tokens[row][answers.mask[row]].tolist()]
        with torch.no_grad():
            logits = merged(torch.tensor([ids])).logits[0].double() / 0.8
        start = len(PROMPTS[row // 4])
        each = logits.log_softmax(-1)[range(start - 1, len(ids) - 1), ids[start:]]
        assert torch.allclose(answers.log_probs[row][answers.mask[row]].double(), each, atol=1e-5)


def test_greedy_answers_are_those_of_transformers(model):
    requests = [request(model, client, PROMPTS) for client in range(3)]
    for client, own in enumerate(generate(model, requests, Sampling(1, 16, (STOP,), 0.0), seed=0)):
        merged = plain(model, client)
        for row, prompt in enumerate(PROMPTS):
            ids = torch.tensor([prompt])
            expected = merged.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False,
                eos_token_id=STOP, pad_token_id=0,
            )  # fmt: skip
            assert own.tokens[row][own.mask[row]].tolist() == expected[0, len(prompt) :].tolist()
    assert len({tuple(row.tolist()) for row in own.tokens}) > 1


@pytest.mark.parametrize("sampling", [Sampling(3, 10, (STOP, 9)), Sampling(2, 17, (), 1.7)])
@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:1]])  # also fewer rows than kernels like
def test_a_client_answers_in_a_cohort_as_alone(model, sampling, prompts):
    requests = [request(model, client, prompts) for client in range(3)]
    # One whose prompts have no room for padding otherwise, one of another shape, one without.
    requests.append(request(model, 3, [[1] * 8] * len(prompts)))
    requests.append(request(model, 4, [*prompts, PROMPTS[2]]))
    together = generate(model, requests, sampling, seed=5)
    for one, own in zip(requests, together, strict=True):
        (alone,) = generate(model, [one], sampling, seed=5)
        for name in ("tokens", "mask", "log_probs"):
            assert torch.equal(getattr(alone, name), getattr(own, name)), name
    assert not torch.equal(together[0].tokens[0, :3], together[1].tokens[0, :3])


def test_samples_are_a_function_of_key_and_prompt(model):
    sampling = Sampling(2, 8, ())
    one = request(model, 0)
    (first,) = generate(model, [one], sampling, seed=0)
    fewer = Request(one.adapter, [one.prompts[2]], [2], one.key)
    (same,) = generate(model, [fewer], sampling, seed=0)
    assert torch.equal(first.tokens[4:], same.tokens)
    for other in (Request(one.adapter, one.prompts, one.numbers, (0, 3, 1)), one):
        (drawn,) = generate(model, [other], sampling, seed=int(other is one))
        assert not torch.equal(first.tokens, drawn.tokens)
    draws = uniforms(one, sampling, 0)
    assert draws.shape == (3, 2, 8)
    assert len(np.unique(draws)) == draws.size


def test_answers_end_with_the_token_that_stops_them(model):
    (free,) = generate(model, [request(model, 0)], Sampling(8, 12, ()), seed=0)
    assert free.mask.all()
    stop = int(free.tokens[0, 4])
    (ended,) = generate(model, [request(model, 0)], Sampling(8, 12, (stop,)), seed=0)
    for one, mask, other in zip(ended.tokens, ended.mask, free.tokens, strict=True):
        places = (other == stop).nonzero()
        length = int(places[0]) + 1 if len(places) else 12
        assert int(mask.sum()) == length
        assert torch.equal(one[:length], other[:length])
        assert not one[length:].any()
    assert int(ended.mask[0].sum()) <= 5


def test_tokens_are_drawn_by_inverting_the_distribution():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.0, 0.25]])).expand(5, 4)
    numbers = torch.tensor([0.0, 0.499, 0.501, 0.751, 1 - 2**-53], dtype=torch.float64)
    tokens, found = pick(logits, numbers, 1.0)
    assert tokens.tolist() == [0, 0, 1, 3, 3]
    assert found.exp().tolist() == pytest.approx([0.5, 0.5, 0.25, 0.25, 0.25])
    # At temperature 1/2 probabilities are squared: 2/3, 1/6, 0, 1/6.
    tokens, found = pick(logits, numbers, 0.5)
    assert tokens.tolist() == [0, 0, 0, 1, 3]
    assert found.exp().tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1 / 6, 1 / 6])
    even = (torch.arange(10000, dtype=torch.float64) + 0.5) / 10000
    wide = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    tokens, _ = pick(wide.expand(10000, 50), even, 1.0)
    shares = torch.bincount(tokens, minlength=50) / 10000
    assert torch.allclose(shares, wide.softmax(1)[0], atol=2e-4)


def test_the_reference_is_the_backbone_without_adapter(model):
    (answers,) = generate(model, [request(model, 2)], Sampling(2, 6, (STOP,)), seed=0)
    examples = answers.examples(0, 64)
    found = log_probs(model, examples, None)
    original = AutoModelForCausalLM.from_pretrained(model.backbone.source).eval()
    batch = examples.batch(np.arange(6))
    with torch.no_grad():
        expected = original(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    real = batch["attention_mask"].bool()
    assert torch.allclose(reference_logits(model, batch)[real], expected[real], atol=1e-5)
    # B = 0 at the start: the untrained adapter is the reference, another one is not.
    assert torch.allclose(found, log_probs(model, examples, model.initial), atol=1e-5)
    assert not torch.allclose(found, log_probs(model, examples, adapter(model, 2)), atol=0.1)
    rows = examples.corpus.offsets
    by_hand = [float(found[rows[i] : rows[i + 1]].sum()) for i in range(6)]
    assert sums(examples.corpus, found).tolist() == pytest.approx(by_hand, abs=1e-5)


def test_examples_hold_values_at_their_tokens(model):
    (answers,) = generate(model, [request(model, 0)], Sampling(2, 6, (STOP, 9, 30)), seed=1)
    marks = torch.arange(answers.tokens.numel()).view(answers.tokens.shape) + 100.0
    columns = {"advantage": torch.arange(6.0)}
    examples = answers.examples(0, 64, columns, {"mark": marks})
    batch = examples.batch(np.array([4, 1]))
    assert batch["advantage"].tolist() == [4.0, 1.0]
    for place, row in enumerate((4, 1)):
        head, own = PROMPTS[row // 2], answers.mask[row]
        end = len(head) + int(own.sum())
        expected = [*head, *answers.tokens[row][own].tolist()]
        assert batch["input_ids"][place, :end].tolist() == expected
        assert batch["mark"][place, : len(head)].tolist() == [0.0] * len(head)
        assert batch["mark"][place, len(head) : end].tolist() == marks[row][own].tolist()
        labelled = batch["labels"][place] != -100
        assert labelled.nonzero().flatten().tolist() == list(range(len(head), end))


def test_what_has_no_room_is_refused(model):
    with pytest.raises(UserError, match="prompt of 60 tokens and an answer of 8"):
        generate(model, [request(model, 0, [[1] * 60])], Sampling(1, 8, ()), seed=0)
    with pytest.raises(UserError, match="no token"):
        generate(model, [request(model, 0, [[1], []])], Sampling(1, 8, ()), seed=0)


def test_any_number_of_answers_has_the_bytes_of_a_client_alone_on_a_real_model(shared):
    """Nine rows a slot: the widths of this model show the kernels that a tiny one hides."""
    name = str(shared("models/stories260k"))
    backbone = load_backbone(ModelConfig(name=name), "causal", None, torch.device("cpu"))
    config = AdapterConfig(rank=4, targets=["q_proj", "v_proj"])
    model = AdaptedModel(backbone, config, "causal", seed=0)
    prompts = [[1, 403, 411], [1, 317, 380, 300, 420, 411], [1, 276]]
    requests = []
    for client in range(3):
        draw = torch.Generator().manual_seed(client)
        adapter = {n: t + 0.05 * torch.randn(t.shape, generator=draw)
                   for n, t in model.initial.items()}  # fmt: skip
        requests.append(Request(adapter, prompts, range(3), (client,)))
    sampling = Sampling(samples=3, tokens=16, stop=(1, 2))
    together = generate(model, requests, sampling, seed=0)
    for request, beside in zip(requests, together, strict=True):
        (alone,) = generate(model, [request], sampling, seed=0)
        assert torch.equal(alone.tokens, beside.tokens)
        assert torch.equal(alone.log_probs, beside.log_probs)
