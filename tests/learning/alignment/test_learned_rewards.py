"""The judge that clients use, what the server learns for it, and what it says of bad input."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModel

from airtune.errors import UserError
from airtune.learning.adapter import AdaptedModel
from airtune.learning.alignment.answers import Answers
from airtune.learning.alignment.generation import Request, Sampling, generate
from airtune.learning.alignment.learned_rewards import LearnedRewards, LearnedRewardsConfig, learn
from airtune.learning.alignment.reward_head import RewardHead
from airtune.learning.backbone import load_backbone
from airtune.learning.config import AdapterConfig, DataConfig, ModelConfig
from airtune.learning.data.examples import tokenise
from airtune.learning.data.sources import load_table

WORDS = ["show", "the", "port", "route", "of", "router", "status", "for", "all", "links", "in"]


@pytest.fixture(scope="module")
def model(tiny_llama):
    backbone = load_backbone(ModelConfig(name=tiny_llama), "causal", None, torch.device("cpu"))
    return AdaptedModel(backbone, AdapterConfig(rank=2), "causal", seed=0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pairs with a prompt, pairs of whole dialogues, and plain texts."""
    folder, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    asked, talked = [], []
    for _ in range(90):
        prompt, *two = (" ".join(rng.choice(WORDS, size=rng.integers(2, 12))) for _ in range(3))
        chosen, rejected = sorted(two, key=lambda text: text.split().count("the"))
        if rng.random() < 0.3:
            chosen, rejected = rejected, chosen
        asked.append({"ask": prompt, "good": chosen, "bad": rejected})
        begun = f"\n\nHuman: {prompt}\n\nAssistant: "
        talked.append({"chosen": begun + rejected, "rejected": begun + chosen})
    texts = [{"text": row["ask"]} for row in asked]
    for name, rows in {"asked": asked, "talked": talked, "texts": texts}.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def described(files, common=None, helpful=None, safe=None):
    asked = {"train": f"{files}/asked.jsonl", "prompt": "ask", "chosen": "good", "rejected": "bad"}
    talked = {"train": f"{files}/talked.jsonl"}
    return LearnedRewardsConfig(
        helpful=asked | (helpful or {}), safe=talked | (safe or {}), common=common
    )


@pytest.fixture(scope="module")
def learned(model, files):
    return learn(described(files), model.backbone, seed=0)


def tokenised(model, files, part="test", name="asked"):
    columns = {"prompt": "ask", "chosen": "good", "rejected": "bad"}
    columns = columns if name == "asked" else {"chosen": "chosen", "rejected": "rejected"}
    table = load_table(DataConfig(train=f"{files}/{name}.jsonl", **columns), 0)
    frame = {"test": table.test, "train": table.train}[part]
    return tokenise(frame, "causal", model.backbone.tokenizer, 64)


def as_answers(examples):
    """The same tokens as answers: two for each prompt, with their end."""
    corpus, prompts, answers = examples.corpus, [], []
    for pair in examples.rows:
        for row in pair:
            tokens = corpus.tokens[corpus.offsets[row] : corpus.offsets[row + 1]].tolist()
            begin = int(corpus.targets[row])
            answers.append(tokens[begin:])
        prompts.append(tokens[:begin])
    shape = len(answers), max(map(len, answers))
    tokens, mask = torch.full(shape, 7), torch.zeros(shape, dtype=torch.bool)
    for row, answer in enumerate(answers):
        tokens[row, : len(answer)], mask[row, : len(answer)] = torch.tensor(answer), True
    return Answers(prompts, 2, tokens, mask, torch.zeros(shape))


def reference(model, learned, name, examples):
    """The rewards of pairs by transformers' own model, one text at a time."""
    inner = AutoModel.from_pretrained(model.backbone.source).eval()
    weight, (mean, deviation) = (learned.tensors[f"{name}.{part}"] for part in ("weight", "scale"))
    rewards = np.zeros(examples.rows.shape)
    for place, row in np.ndenumerate(examples.rows):
        tokens = examples.corpus.tokens[slice(*examples.corpus.offsets[row : row + 2])]
        with torch.no_grad():
            hidden = inner(torch.from_numpy(tokens)[None].long()).last_hidden_state[0]
        rewards[place] = (hidden.mean(0) @ weight[0] - mean) / deviation
    return rewards


def test_an_answer_has_the_reward_that_its_text_has_in_training(model, files, learned):
    examples = tokenised(model, files)
    found = LearnedRewards()(model, as_answers(examples), learned.tensors)
    assert found.shape == (18, 2) and found.dtype == torch.float32
    for column, name in enumerate(("helpful", "safe")):
        own = found[:, column].view(9, 2)
        right = (own[:, 0] > own[:, 1]).float().mean()
        if name == "helpful":  # these are its held-out pairs
            assert float(right) == pytest.approx(learned.accuracy[name].share)
        expected = reference(model, learned, name, examples)
        assert np.ptp(expected) > 1
        assert np.allclose(own.numpy(), expected, atol=1e-4)


def test_tokens_alone_decide_a_reward_to_the_byte(model, files, learned):
    judge, examples = LearnedRewards(), tokenised(model, files, "train")
    together = judge(model, as_answers(examples), learned.tensors).view(len(examples), 2, 2)
    adapter = {name: value + 0.5 for name, value in model.initial.items()}
    model.slots.load([adapter])  # the policy's adapter is none of the judge's business
    for place in (0, 7, 50):
        alone = examples.select(examples.rows[place : place + 1])
        assert torch.equal(judge(model, as_answers(alone), learned.tensors), together[place])
    answers = as_answers(examples)
    behind = answers.tokens.masked_fill(~answers.mask, 3)  # what stands behind an answer's end
    same = judge(model, replace(answers, tokens=behind), learned.tensors)
    assert torch.equal(same.view_as(together), together)
    cut = answers.mask & (answers.mask.cumsum(1) < answers.mask.sum(1, keepdim=True))
    unended = judge(model, replace(answers, mask=cut), learned.tensors)
    assert not torch.isclose(unended.view_as(together), together).all(-1).any()


def test_generated_answers_are_judged_alike_alone_and_side_by_side(model, learned):
    prompts = [[1, 20, 30], [1, 44, 5, 60, 71], [1, 9]]
    adapters = [{n: v + 0.1 * k for n, v in model.initial.items()} for k in range(3)]
    requests = [Request(a, prompts, range(3), (k,)) for k, a in enumerate(adapters)]
    sampling, judge = Sampling(samples=4, tokens=10, stop=(2,)), LearnedRewards()
    together = [
        judge(model, answers, learned.tensors)
        for answers in generate(model, requests, sampling, seed=3)
    ]
    for request, expected in zip(requests, together, strict=True):
        (answers,) = generate(model, [request], sampling, seed=3)
        found = judge(model, answers, learned.tensors)
        assert found.shape == (12, 2) and torch.equal(found, expected)
    assert not torch.equal(together[0], together[1])


def test_equal_judges_are_equal():
    assert LearnedRewards() == LearnedRewards() and len({LearnedRewards(), LearnedRewards()}) == 1


def test_both_rewards_are_standardised_on_what_both_learn_from(model, files, learned):
    chosen = []
    for name in ("asked", "talked"):
        examples = tokenised(model, files, "train", name)
        chosen.append(examples.select(examples.rows[:, 0]))
    for name in ("helpful", "safe"):
        rewards = np.concatenate([reference(model, learned, name, c) for c in chosen])
        assert (rewards.mean(), rewards.std()) == pytest.approx((0, 1), abs=1e-4)
    texts = learn(described(files, common=f"{files}/texts.jsonl"), model.backbone, 0)
    frame = load_table(
        DataConfig(train=f"{files}/texts.jsonl", test=f"{files}/texts.jsonl"), 0
    ).test
    common = tokenise(frame, "causal", model.backbone.tokenizer, 64)
    for name in ("helpful", "safe"):
        rewards = reference(model, texts, name, common)
        assert (rewards.mean(), rewards.std()) == pytest.approx((0, 1), abs=1e-4)
        assert torch.equal(texts.tensors[f"{name}.weight"], learned.tensors[f"{name}.weight"])


def test_held_out_pairs_are_counted(model, files, learned):
    for name, pairs in (("helpful", "asked"), ("safe", "talked")):
        held_out = tokenised(model, files, "test", pairs)
        right = [a > b for a, b in reference(model, learned, name, held_out)]
        assert learned.accuracy[name].pairs == len(right) == 9
        assert 0 < sum(right) < 9
        assert learned.accuracy[name].share == pytest.approx(sum(right) / 9)


def test_files_hold_what_was_learned(model, files, learned, tmp_path):
    data = {}
    for name, head in learned.heads.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(head.to_bytes(model.backbone))
        data[name] = {"file": str(path)}
    again = learn(LearnedRewardsConfig(**data), model.backbone, 5)
    assert again.accuracy == {}
    assert again.tensors.keys() == learned.tensors.keys()
    for name, value in learned.tensors.items():
        assert torch.equal(again.tensors[name], value)


def test_fewer_pairs_are_a_keyed_choice(model, files, learned):
    few = described(files, helpful={"limit": 30})
    one, same, other = (learn(few, model.backbone, seed).tensors for seed in (0, 0, 1))
    weight = "helpful.weight"
    assert torch.equal(one[weight], same[weight])
    assert not torch.equal(one[weight], other[weight])
    assert not torch.equal(one[weight], learned.tensors[weight])
    assert torch.equal(one["safe.weight"], learned.tensors["safe.weight"])


def test_bad_input_is_named(model, files, learned, tmp_path):
    def refused(match, **sections):
        with pytest.raises(UserError, match=match):
            learn(described(files, **sections), model.backbone, 0)

    refused(r"^method.rewards.helpful.chosen: .* no column 'god'; did you mean 'good'",
            helpful={"chosen": "god"})  # fmt: skip
    refused(r"^method.rewards.safe.rejected: .* no column 'bad'", safe={"rejected": "bad"})
    refused(r"^method.rewards.safe.train: there is no file", safe={"train": "nowhere.csv"})
    refused(r"^method.rewards.common: there is no file 'nowhere.csv'", common="nowhere.csv")
    refused(r"^method.rewards.common: .* no column 'text'; valid are: ask, bad, good",
            common=f"{files}/asked.jsonl")  # fmt: skip
    same = tmp_path / "same.jsonl"
    same.write_text("\n".join(json.dumps({"chosen": "the port", "rejected": "the port"})
                              for _ in range(20)))  # fmt: skip
    refused(r"^method.rewards.safe: .* one reward", safe={"train": str(same)})
    same.write_text(same.read_text().splitlines()[0])
    refused(r"^method.rewards.safe.train: .* has one row", safe={"train": str(same)})
    with pytest.raises(ValidationError, match="give one"):
        described(files, safe={"file": "somewhere"})
    with pytest.raises(ValidationError, match="leave limit out"):
        described(files, safe={"train": None, "file": "somewhere", "limit": 3})


def test_files_of_elsewhere_are_named(model, files, learned, tmp_path):
    def refused(match, content):
        path = tmp_path / "file"
        path.write_bytes(content)
        with pytest.raises(UserError, match=match):
            safe = {"file": str(path), "train": None}
            learn(described(files, safe=safe), model.backbone, 0)

    tokenizer = model.backbone.tokenizer.__class__.from_pretrained(model.backbone.source)
    tokenizer.add_tokens(["<new>"])
    other = replace(model.backbone, tokenizer=tokenizer)
    refused(
        r"^method.rewards.safe.file: .* has another tokenizer",
        learned.heads["safe"].to_bytes(other),
    )
    refused(r"^method.rewards.safe.file: .* cannot be read", b"nothing of the sort")
    raw = RewardHead(torch.ones(1, 32)).to_bytes(model.backbone)
    path = tmp_path / "raw"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"^method.rewards.helpful.file: .* never standardised"):
        data = {name: {"file": str(path)} for name in ("helpful", "safe")}
        learn(LearnedRewardsConfig(**data), model.backbone, 0)
