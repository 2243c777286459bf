"""What is said of learned rewards is counted on pairs that they have not seen."""

import json

import numpy as np
import pytest
import torch

from airtune.learning.backbone import load_backbone
from airtune.learning.config import ModelConfig
from benchmarks.pwff import rewards as of


def found(*shares, error=0.02):
    return of.Found(list(shares), list(shares), error, 100, 1.0, {0.01: 0.5})


def test_splits_are_tenths_that_nobody_learns_from():
    splits = of.splits(95)
    assert len(splits) == 3
    for own, held_out in splits:
        assert len(held_out) == 9
        assert sorted([*own, *held_out]) == list(range(95))
    assert len({tuple(held_out) for _, held_out in splits}) == 3


def test_what_cannot_be_learned_is_not_and_what_can_is():
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.normal(size=(400, 2, 5))).float()
    nothing = of.judged(noise, 0.0)
    assert abs(nothing.mean - 0.5) < 3 * nothing.error and nothing.pairs == 40
    assert nothing.by_decay[of.DECAY] == nothing.mean
    told = noise.clone()
    told[:, 0, 2] += 3.0
    seen = of.judged(told, 0.0)
    # Two normal values apart by 3: the first is larger with probability Phi(3 / sqrt 2) = 0.983.
    assert seen.mean == pytest.approx(0.983, abs=3 * 0.02)


def test_pairs_of_a_file_are_read_and_longer_answers_counted(tiny_llama, tmp_path):
    rows = [{"chosen": "show " * (1 + i % 5), "rejected": "show show show"} for i in range(40)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    backbone = load_backbone(ModelConfig(name=tiny_llama), "causal", None, torch.device("cpu"))
    pairs = of.read(tmp_path, {"train": "pairs.jsonl"}, backbone)
    assert len(pairs) == 40
    expected = []
    for _, held_out in of.splits(40):
        lengths = [1 + int(i) % 5 for i in held_out]
        expected.append(sum((n > 3) + 0.5 * (n == 3) for n in lengths) / 4)
    assert of.by_length(pairs).shares == expected


def test_two_standard_errors_decide():
    rows = {
        "hh, harmless": {"stories260k": found(0.55, 0.53), "MiniLM": found(0.56, 0.55)},
    }
    decided = {claim["id"]: claim for claim in of.claims(rows)}
    assert decided["J-stories260k-hh"]["holds"] is False
    assert decided["J-MiniLM-hh"]["holds"] is True
    page = of.page({"claims": list(decided.values()), "machine": "", "command": ""}, rows)
    assert (
        "| hh, harmless | MiniLM | 100 | 0.560, 0.550 | 0.555 | 0.020 | 0.555 | 0.500 | 1 |" in page
    )
