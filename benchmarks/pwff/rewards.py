"""What learned rewards know of pairs that they have not seen; writes rewards.json and REWARDS.md.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.pwff.rewards --shared ../shared

Each judge is a head on a frozen model: the policy's own decoder, as clients have it, and beside it
a larger sentence encoder. A tenth of the pairs is held out, three times anew.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from airtune import keyed
from airtune.learning.alignment.learned_rewards import LearnedRewardsConfig, RewardData
from airtune.learning.alignment.reward_head import Accuracy, accuracy, features, fit_head
from airtune.learning.backbone import Backbone, load_backbone
from airtune.learning.config import DataConfig, ModelConfig
from airtune.learning.data.examples import Examples, pack, tokenise
from airtune.learning.data.sources import load_table
from benchmarks import runs
from benchmarks.claims import Claims, table

HERE = Path(__file__).parent
COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.pwff.rewards --shared DIR"
SEEDS = (0, 1, 2)
LENGTH = int(LearnedRewardsConfig.model_fields["max_tokens"].default)
DECAY = float(RewardData.model_fields["decay"].default)
DECAYS = (0.001, 0.01, 0.1, 1.0)
DATA: dict[str, dict[str, Any]] = {
    "hh_rlhf, harmless": {"train": "hh_rlhf/harmless_base_test.jsonl.gz"},
    "pref_small, polite": {
        "train": "pref_small/polite_preference_1k.jsonl.gz", "prompt": ["instruction", "input"],
    },
    "dpo_en_demo, helpful": {
        "train": "dpo_en_demo/dpo_en_300.jsonl.gz", "prompt": "conversations",
    },
}  # fmt: skip
JUDGES = {"stories260k": ("stories260k", "causal"), "MiniLM": ("minilm-l6-v2", "classification")}
LENGTH_ALONE = "the longer answer"


@dataclass(frozen=True)
class Found:
    """What a judge says of held-out pairs: shares right by seed, error of one split, pairs."""

    shares: list[float]
    trained: list[float]  # shares of the pairs that were learned from
    error: float
    pairs: int
    seconds: float  # of the features of all pairs
    by_decay: dict[float, float]  # mean share at other decays

    @property
    def mean(self) -> float:
        return statistics.fmean(self.shares)

    @property
    def record(self) -> dict[str, Any]:
        return {
            "held_out": [round(share, 4) for share in self.shares],
            "learned_from": [round(share, 4) for share in self.trained],
            "standard_error": round(self.error, 4),
            "held_out_pairs": self.pairs,
            "seconds": round(self.seconds, 1),
            "by_decay": {f"{decay:g}": round(mean, 4) for decay, mean in self.by_decay.items()},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder of data/ and models/")
    arguments = parser.parse_args()
    rows: dict[str, dict[str, Found]] = {}
    for title, data in DATA.items():
        rows[title] = {}
        for judge, (folder, task) in JUDGES.items():
            config = ModelConfig(name=str(arguments.shared / "models" / folder))
            backbone = load_backbone(config, task, 1, torch.device("cpu"))
            pairs = read(arguments.shared / "data", data, backbone)
            if task == "causal":
                rows[title][LENGTH_ALONE] = by_length(pairs)
            started = time.perf_counter()
            seen = features(backbone, pairs)
            rows[title][judge] = judged(seen, time.perf_counter() - started)
            print(title, judge, rows[title][judge].record, flush=True)
    results = {
        "claims": claims(rows),
        "command": COMMAND,
        "machine": runs.machine(),
        "versions": runs.versions(),
        "seeds": list(SEEDS),
        "setting": {"decay": DECAY, "max_tokens": LENGTH, "held_out": 0.1},
        "rows": {t: {j: found.record for j, found in by.items()} for t, by in rows.items()},
    }
    runs.write(results, HERE / "rewards.json")
    (HERE / "REWARDS.md").write_text(page(results, rows), encoding="utf-8")


def read(folder: Path, data: dict[str, Any], backbone: Backbone) -> Examples:
    """Return all pairs of a file in the model's tokens; an encoder gets its own borders."""
    file = str(folder / data["train"])
    columns = {"chosen": "chosen", "rejected": "rejected", **data, "train": file, "test": file}
    table, tokenizer = load_table(DataConfig(**columns), 0), backbone.tokenizer
    borders = [] if tokenizer.cls_token_id is None else [tokenizer.cls_token_id]
    found = tokenise(table.train, "causal", tokenizer, LENGTH - 2 * len(borders))
    if not borders:
        return found
    corpus = found.corpus
    texts = [
        [*borders, *corpus.tokens[a:b].tolist(), tokenizer.sep_token_id]
        for a, b in zip(corpus.offsets[:-1], corpus.offsets[1:], strict=True)
    ]
    packed = pack(texts, corpus.targets + 1, "causal", corpus.pad, LENGTH)
    return packed.select(found.rows)


def splits(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (learned from, held out) of each seed."""
    orders = [keyed.generator(seed, "hold out").permutation(count) for seed in SEEDS]
    return [(order[count // 10 :], order[: count // 10]) for order in orders]


def judged(seen: Tensor, seconds: float) -> Found:
    """Return how heads on these features [pairs, 2, width] do."""
    held_out: dict[float, list[Accuracy]] = {decay: [] for decay in DECAYS}
    trained = []
    for own, others in splits(len(seen)):
        for decay in DECAYS:
            head = fit_head(seen[own], decay)
            held_out[decay].append(accuracy(head.rewards(seen[others]).numpy()))
            if decay == DECAY:
                trained.append(accuracy(head.rewards(seen[own]).numpy()).share)
    means = {decay: statistics.fmean(a.share for a in each) for decay, each in held_out.items()}
    usual = held_out[DECAY]
    error = statistics.fmean(each.error for each in usual)
    shares = [each.share for each in usual]
    return Found(shares, trained, error, usual[0].pairs, seconds, means)


def by_length(pairs: Examples) -> Found:
    """Return how often the longer of two texts is the chosen one; nothing is learned."""
    lengths = pairs.corpus.lengths[pairs.rows].astype(float)
    found = [accuracy(lengths[held_out]) for _, held_out in splits(len(pairs))]
    error = statistics.fmean(each.error for each in found)
    return Found([each.share for each in found], [], error, found[0].pairs, 0.0, {})


def claims(rows: dict[str, dict[str, Found]]) -> list[dict[str, Any]]:
    """Return what these rows decide; splits overlap, so errors are those of one split."""
    found = Claims(COMMAND)
    for title, by in rows.items():
        for judge in JUDGES:
            own = by[judge]
            found.add(
                f"J-{judge}-{title.split(',')[0]}",
                f"{title}: share of held-out pairs that {judge}'s features order rightly, mean of "
                f"{len(SEEDS)} splits of {own.pairs} pairs (standard error of one {own.error:.3f})",
                "above 0.5 by two standard errors", [own.mean], own.mean - 2 * own.error > 0.5,
            )  # fmt: skip
    return found.found


def page(results: dict[str, Any], rows: dict[str, dict[str, Found]]) -> str:
    """Return the page: one table of shares, and the claims."""
    parts = [
        "# Learned rewards\n",
        f"Measured on {results['machine']} by `{results['command']}`; this page is written by it. "
        "A head on frozen features, learned from nine tenths of the pairs by the pairwise logistic "
        f"loss (decay {DECAY:g}, texts cut to {LENGTH} tokens), and the share of the other tenth "
        f"that it orders rightly, of each of {len(SEEDS)} splits. stories260k is the policy that "
        "is tuned, and what clients judge with; MiniLM is a larger reader beside it. The longer "
        "answer is judged by tokens of the texts as cut, without learning; ties count half. Means "
        "at other decays are of the same held-out pairs, to show how much it matters; the default "
        "was chosen on other splits of the same files, so the figures are a little optimistic.\n",
        "| data | judge | held-out pairs | right, by split | mean | error of a split "
        f"| right of those learned from | mean at decay {', '.join(f'{d:g}' for d in DECAYS)} "
        "| features, s |",
        "|" + "---|" * 9,
    ]
    for title, by in rows.items():
        for judge, own in by.items():
            shares = ", ".join(f"{share:.3f}" for share in own.shares)
            learned = f"{statistics.fmean(own.trained):.3f}" if own.trained else ""
            seconds = f"{own.seconds:.0f}" if own.seconds else ""
            cells = title, judge, str(own.pairs), shares, f"{own.mean:.3f}", f"{own.error:.3f}"
            decays = ", ".join(f"{own.by_decay[d]:.3f}" for d in DECAYS if d in own.by_decay)
            parts.append(f"| {' | '.join([*cells, learned, decays, seconds])} |")
    return "\n".join([*parts, "", *table(results["claims"], ".3f")]) + "\n"


if __name__ == "__main__":
    main()
