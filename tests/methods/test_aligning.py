"""PWFF and PFIT: who learns for which weight, what travels, what is refused."""

import re

import numpy as np
import pytest
import torch

import airtune
from airtune.build import build, session
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.federation import ledger
from airtune.learning.alignment.reward_head import read
from airtune.learning.alignment.topics import CARING_TASK, prompts

ANSWERS = {"prompts": 4, "samples": 4, "tokens": 8}
EXAMINED = {"prompts": 6, "samples": 2, "tokens": 8}
PWFF = {"name": "pwff", "answers": ANSWERS, "examined": EXAMINED}
PFIT = {"name": "pfit", "answers": ANSWERS, "examined": EXAMINED}
BESIDE = {"kind": "lora+bottleneck", "bottleneck": 4, "rank": 4}
BLOCKS = {"kind": "blocks", "top_layers": 1, "rank": 4}


@pytest.fixture
def talk(execute):
    """Function that runs a method on the built-in topics; last round's row beside the rest."""

    def run(method, adapter=None, **sections):
        values = {"task": "topics", "cell": "ideal", "adapter": adapter or BESIDE}
        values["train"] = {"rounds": 2, "learning_rate": 1e-2, "evaluate_every": 9} | sections.pop(
            "train", {}
        )
        parts, progress, rows = execute(method, **values, **sections)
        return parts, progress, [row for row in rows if row["row"] == "round"][-1], rows

    return run


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_adapters_travel_and_lora_stays(talk):
    parts, progress, _, rows = talk(PWFF)
    assert all("bottleneck" in name for name in parts.method.shared(parts.model.initial))
    sizes = sum(t.numel() for n, t in parts.model.initial.items() if "bottleneck" in n)
    sent = [row for row in rows if row["row"] == "upload"]
    assert all(32 * sizes < row["bits"] < 32 * sizes + 8 * 2000 for row in sent)
    private = [parts.clients.states.get(c)["private"] for c in range(5)]
    assert not same(private[0], private[1])
    assert all("lora" in name for name in private[0])
    assert set(progress.personal) == {0, 1, 2, 3, 4}


def test_clients_are_judged_by_their_own_weights(talk):
    _, progress, last, _ = talk(PWFF | {"preferences": [0.0, 0.7]})
    for client, scores in progress.personal.items():
        a = (0.0, 0.7)[client % 2]
        expected = a * scores["helpful"] + (1 - a) * scores["safe"]
        assert scores["reward"] == pytest.approx(expected)
    mean = np.mean([scores["reward"] for scores in progress.personal.values()])
    assert last["scores"]["personal_reward"] == pytest.approx(mean)


def test_a_common_weight_is_learned_for_and_own_ones_are_judged_by(talk):
    common = talk(PWFF | {"preferences": [0.2, 0.9], "trains_for": 0.5})[1]
    other = talk(PWFF | {"preferences": [0.1], "trains_for": 0.5})[1]
    own = talk(PWFF | {"preferences": [0.2, 0.9]})[1]
    assert same(common.adapter, other.adapter)
    assert not same(common.adapter, own.adapter)
    assert common.personal[1]["helpful"] == other.personal[1]["helpful"]
    assert common.personal[1]["reward"] != other.personal[1]["reward"]


@pytest.mark.slow
def test_training_for_one_reward_raises_it(talk):
    """Care is a matter of words, which a model of 400 of them learns to say in a few rounds."""
    method = PWFF | {
        "rewards": "caring", "trains_for": 0.0, "kl": 0.0, "private": [],
        "answers": {"prompts": 8, "samples": 8, "tokens": 8},
        "examined": {"prompts": 28, "samples": 4, "tokens": 8},
    }  # fmt: skip
    _, progress, last, _ = talk(
        method, train={"rounds": 3, "local_steps": 5, "learning_rate": 3e-2}
    )
    before = progress.untrained[0]["safe"]
    assert last["scores"]["safe"] > before + 0.2
    assert last["scores"]["kl"] > 0.1


@pytest.mark.parametrize(
    "method",
    [
        PWFF | {"weights": "mgda"},
        PWFF | {"weights": "anchored", "equal_length": True},
        PWFF | {"algorithm": "ppo"},
        PFIT | {"algorithm": "ppo", "entropy": 0.01, "personal": "copy"},
    ],
    ids=lambda method: "-".join(str(v) for v in method.values() if not isinstance(v, dict)),
)
def test_cohorts_of_any_size_learn_the_same(talk, method):
    adapter = BESIDE if method["name"] == "pwff" else BLOCKS
    _, together, _, rows = talk(method, adapter, machine={"cohort": 5})
    _, alone, _, others = talk(method, adapter, machine={"cohort": 1})
    assert rows == others
    assert same(together.adapter, alone.adapter)


def test_a_distance_in_the_reward_has_no_gradient_and_one_in_the_loss_has(talk):
    """The specification's remark, shown: all answers of a step have the same distance."""
    ends = {}
    for where, weight in (("loss", 0.0), ("reward", 100.0), ("loss", 100.0)):
        method = PFIT | {"distance": where, "proximal": weight, "scale": "none"}
        parts, progress, _, _ = talk(method, BLOCKS, train={"rounds": 1, "local_steps": 3})
        start = parts.model.initial
        ends[where, weight] = progress.adapter
        moved = sum(float((t - start[n]).square().sum()) for n, t in progress.adapter.items())
        ends[where, weight, "moved"] = moved
    for name, tensor in ends["loss", 0.0].items():
        assert torch.allclose(tensor, ends["reward", 100.0][name], atol=1e-5), name
    assert ends["loss", 100.0, "moved"] < 0.8 * ends["loss", 0.0, "moved"]


def test_copies_move_towards_the_broadcast_and_restarts_take_it(talk):
    train = {"rounds": 2, "local_steps": 1}
    parts, progress, _, _ = talk(PFIT | {"personal": "copy", "mixing": 0.25}, BLOCKS, train=train)
    for client in (0, 3):
        own = parts.clients.states.get(client)["own"]
        used = parts.clients.personal_adapter(client, 3, parts.clients._heard[0])
        heard = parts.clients._heard[1].tensors
        for name in own:
            assert torch.allclose(used[name], 0.75 * own[name] + 0.25 * heard[name], atol=1e-6)
    parts, progress, _, _ = talk(PFIT, BLOCKS, train=train)
    for client in (0, 3):
        used = parts.clients.personal_adapter(client, 3, parts.clients._heard[0])
        assert same(used, progress.adapter)


def test_what_clients_earned_stands_beside_their_uploads(talk):
    _, _, _, rows = talk(PWFF)
    for row in rows:
        if row["row"] == "upload":
            notes = row["notes"]
            a = (0.0, 0.25, 0.5, 0.75, 1.0)[row["client"]]
            assert notes["reward"] == pytest.approx(
                a * notes["helpful"] + (1 - a) * notes["safe"], abs=1e-5
            )


def test_generating_is_charged(talk):
    """More answers are more tokens drawn, read and trained on."""
    seconds = []
    for samples in (4, 8):
        method = PWFF | {"answers": ANSWERS | {"samples": samples}}
        _, _, _, rows = talk(method, train={"rounds": 1})
        seconds.append(sum(r["compute_seconds"] for r in rows if r["row"] == "upload"))
    assert 1.6 < seconds[1] / seconds[0] < 2.2


INSTRUCT = {"task": "causal", "data": {"prompt": "prompt", "response": "response"}}


def test_alignment_holds_to_what_instruction_tuning_left(small, tmp_path, frames):
    """Pairs of netops answers: two rounds of tuning, then DPO to each client's own reference."""
    from airtune.learning.alignment.scoring import log_probs

    train = frames[0].assign(bad="no idea")
    train.to_csv(tmp_path / "pairs.csv", index=False)
    data = {
        "name": "pairs", "train": str(tmp_path / "pairs.csv"), "test": None,
        "prompt": "prompt", "chosen": "response", "rejected": "bad", "response": None,
    }  # fmt: skip
    method = {"name": "pwff", "algorithm": "dpo", "rewards": None, "tuning_rounds": 1}
    values = small(
        task="causal", method=method, adapter=BESIDE, cell="ideal", data=data,
        train={"rounds": 3, "batch_size": 4, "learning_rate": 5e-3},
    )  # fmt: skip
    experiment = Experiment(**values)
    parts = build(experiment)
    seen = {}
    phases = parts.method.phases

    def watching(client):
        found = phases(client)
        if client.index == 2:
            seen[client.round] = client, found
        return found

    parts.method.phases = watching
    progress = session(parts, experiment, tmp_path)
    list(progress.rounds())
    assert seen[1][1][0].data.sequences == 1
    client, (phase,) = seen[2]
    assert phase.data.sequences == 2
    reference = client.state["reference"]
    third, (later,) = seen[3]
    assert same(third.state["reference"], reference)
    assert not same(parts.model.initial, reference)
    # The reference reads each client's pairs in the first round of alignment, and never again.
    read = int(phase.data.corpus.lengths[phase.data.rows].sum())
    assert (client.predicted_tokens, third.predicted_tokens) == (read, 0)
    # The columns that DPO reads are log-probabilities under that reference.
    each = later.data
    row = int(each.rows[0, 1])
    column = log_probs(parts.model, each.select(np.array([row])), reference)
    assert float(each.corpus.columns["reference"][row]) == pytest.approx(
        float(column.sum()), rel=1e-4
    )
    rows = [r for r in ledger.read(tmp_path / "ledger.jsonl") if r["row"] == "round"]
    assert rows[0]["scores"]["pairs_won"] == 0.5
    assert rows[-1]["scores"]["personal_pairs_won"] > 0.6
    assert rows[-1]["accuracy"] is not None


def test_a_run_tells_of_rewards_and_the_front(small, tmp_path):
    """The front is that of the prompts that models are judged on."""
    run = airtune.run(
        Experiment(**small(task="topics", method=PWFF, adapter=BESIDE, train={"rounds": 1})),
        tmp_path / "run",
    )
    summary = run.summary
    assert summary["accuracy"] is None or np.isnan(summary["accuracy"])
    assert set(summary["personal_scores"]["4"]) >= {"reward", "helpful", "safe", "kl"}
    assert summary["facts"]["preferences"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    points = np.array(summary["facts"]["front"])
    assert points[:, 0].max() <= 1.0
    held_out = [prompt for prompt in prompts() if prompt.held_out]
    assert len(points) <= len(CARING_TASK.front(held_out).points) + 3
    assert (np.diff(points[:, 0]) > 0).all()
    assert (np.diff(points[:, 1]) < 0).all()
    assert "personal_reward" in run.history
    page = (tmp_path / "run" / "report.html").read_text()
    assert "best attainable" in page
    assert "Reward by own weights" in page


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"method": PWFF | {"algorithm": "dpo"}}, "dpo learns from pairs"),
        ({"method": PWFF | {"rewards": None}}, "grpo needs something that judges"),
        ({"method": PWFF | {"algorithm": "ppo", "weights": "mgda"}}, "ppo has one critic"),
        ({"method": PWFF | {"tuning_rounds": 2}}, "the data has prompts alone"),
        ({"method": {"name": "fedavg"}}, "learns given answers, and there are prompts alone"),
        ({"method": PWFF, "task": "classification"}, "answers prompts, and these texts have none"),
        ({"method": PWFF | {"name": "pwff", "ranks": [16]}}, "16 is above adapter.rank"),
        ({"method": PWFF, "task": "causal"}, "names none of the built-in topics"),
        ({"method": PWFF, "clients": {"partition": "dirichlet"}}, "dirichlet needs labels"),
    ],
)
def test_what_cannot_be_learned_is_said_in_a_sentence(small, sections, sentence):
    values = {"task": "topics", "adapter": BESIDE} | sections
    with pytest.raises(UserError, match=re.escape(sentence)):
        experiment = Experiment(**small(**values))
        build(experiment)


def preference_files(tmp_path, frames, columns=("chosen", "rejected")):
    """Pairs whose chosen answers are long, and pairs whose chosen ones name a team."""
    good, bad = columns
    files = {}
    for name in ("helpful", "safe"):
        frame = frames[0][["prompt", "response"]].head(80).copy()
        long, short = frame["response"], frame["response"].str.split().str[:2].str.join(" ")
        frame[good], frame[bad] = (long, short) if name == "helpful" else (short, long)
        files[name] = str(tmp_path / f"{name}.csv")
        frame.to_csv(files[name], index=False)
    return files


def learned(files):
    return {name: {"train": file, "prompt": "prompt", "decay": 0.1} for name, file in files.items()}


def test_learned_rewards_are_sent_once_charged_and_judge(execute, tmp_path, frames):
    """Two clients of five a round: a broadcast has the rewards while it meets one without them."""
    method = PWFF | {"rewards": learned(preference_files(tmp_path, frames))}
    parts, progress, rows = execute(
        method, task="causal", adapter=BESIDE, cell="ideal", clients={"per_round": 2},
        train={"rounds": 8, "local_steps": 1, "evaluate_every": 8},
    )  # fmt: skip
    facts = progress.facts
    assert facts["judges"]["helpful"]["share"] > 0.9
    assert facts["judges"]["safe"]["pairs"] == 8
    down = [row["bits"] for row in rows if row["row"] == "broadcast"]
    asked = [{row["client"] for row in rows if row["row"] == "upload" and row["round"] == r + 1}
             for r in range(8)]  # fmt: skip
    known: set[int] = set()
    usual = min(down)
    for bits, clients in zip(down, asked, strict=True):
        # 2 heads of 32 numbers, and 2 scales of two, behind their names.
        assert (bits - usual > 32 * 68) == (not clients <= known)
        known |= clients
    for client in known:
        told = parts.clients.states.get(client)["told"]
        assert same(told, progress._state["judges"])
    last = [row for row in rows if row["row"] == "round"][-1]
    assert np.isfinite(last["scores"]["personal_helpful"])
    # What the run directory keeps is read as rewards of the next run.
    for name in ("helpful", "safe"):
        file = tmp_path / f"{name}.safetensors"
        file.write_bytes(progress.files[f"rewards/{name}.safetensors"])
        head = read(file, parts.backbone)
        assert same(head.tensors(name), {n: t for n, t in told.items() if n.startswith(name)})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"chosen": "good"}, "method.rewards.helpful.chosen: "),
        ({"train": None, "file": "missing.safetensors"}, "method.rewards.helpful.file"),
    ],
)
def test_rewards_that_cannot_be_learned_are_a_sentence_before_the_run(
    small, tmp_path, frames, change, sentence
):
    rewards = learned(preference_files(tmp_path, frames))
    rewards["helpful"] = (
        {k: v for k, v in change.items() if v is not None}
        if "file" in change
        else rewards["helpful"] | change
    )
    with pytest.raises(UserError, match=re.escape(sentence)):
        build(Experiment(**small(task="causal", method=PWFF | {"rewards": rewards},
                                 adapter=BESIDE)))  # fmt: skip


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({}, 0.0),
        ({"weights": "mgda"}, 1.0),  # a second pass back through what is trained on
        ({"algorithm": "ppo"}, 1.0),  # a pass for the critic
    ],
    ids=["grpo", "mgda", "ppo"],
)
def test_every_pass_is_charged_and_planned(talk, change, more):
    """Drawing, the reference and training are 2 + 2 + 4 P for a token, each further pass 2 P."""
    seconds = []
    for each in ({}, change):
        parts, _, _, rows = talk(PWFF | each, train={"rounds": 1})
        seconds.append(sum(r["compute_seconds"] for r in rows if r["row"] == "upload"))
    planned = parts.method.setup.compute_seconds(np.arange(5), parts.method.work(1)).sum()
    assert 0.6 < seconds[1] / planned < 1.4
    # Padding is trained on too, and passed back through; prompts are drawn for once.
    assert 1.0 + 0.15 * more <= seconds[1] / seconds[0] <= 1.0 + 0.35 * more


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"method": PWFF | {"answers": ANSWERS | {"tokens": 500}}}, "more than the model's 64"),
        (
            {"task": "causal", "clients": {"per_round": 2}, "method": PWFF | {"tuning_rounds": 1}},
            "let clients.per_round be all",
        ),
    ],
)
def test_what_would_fail_in_a_round_is_said_before(small, sections, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        build(Experiment(**small(**{"task": "topics", "adapter": BESIDE} | sections)))


def test_entropy_counts_whatever_weighs_the_rewards(talk):
    train = {"rounds": 1}
    for weights in ("fixed", "split"):
        ends = [
            talk(PWFF | {"weights": weights, "entropy": c}, train=train)[1].adapter
            for c in (0.0, 1.0)
        ]
        assert not same(*ends)
