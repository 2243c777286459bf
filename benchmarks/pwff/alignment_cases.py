"""Alignment by clients' own weights of two rewards: a row is who shares what, learns for what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PREFERENCES = (0.0, 0.25, 0.5, 0.75, 1.0)
ROUNDS, STEPS = 6, 3
SEEDS = (0, 1, 2)
BESIDE = {
    "kind": "lora+bottleneck", "rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj"],
    "bottleneck": 8,
}  # fmt: skip
BLOCK = {"kind": "blocks", "top_layers": 1}
SHARED = {"name": "pwff", "private": []}  # one model for all

MAIN = ("PWFF", "PWFF, split weights", "PWFF+", "local", "equal weights")
SINGLE = {"only safe": 0.0, "weight 0.25": 0.25, "weight 0.75": 0.75, "only helpful": 1.0}
RULES = ("MGDA", "anchored", "MGDA, equal length", "anchored, equal length")
PFIT = (
    "PFIT, copies", "PFIT, restart", "block, equal weights", "PFIT, copies, PPO", "PWFF+, block",
)  # fmt: skip
ON_BLOCK = PFIT  # the rows whose last block trains, at a rate of its own

METHODS: dict[str, dict[str, Any]] = {
    "PWFF": {"name": "pwff"},
    "PWFF, split weights": {"name": "pwff", "weights": "split"},
    "PWFF+": {"name": "pwff_plus"},
    "local": {"name": "pwff", "private": ["*"]},
    "equal weights": {**SHARED, "trains_for": 0.5},
    **{row: {**SHARED, "trains_for": weight} for row, weight in SINGLE.items()},
    "MGDA": {"name": "pwff", "weights": "mgda"},
    "anchored": {"name": "pwff", "weights": "anchored"},
    "MGDA, equal length": {"name": "pwff", "weights": "mgda", "equal_length": True},
    "anchored, equal length": {"name": "pwff", "weights": "anchored", "equal_length": True},
    "PFIT, copies": {"name": "pfit", "personal": "copy"},
    "PFIT, restart": {"name": "pfit"},
    "block, equal weights": {"name": "pfit", "trains_for": 0.5},
    "PFIT, copies, PPO": {"name": "pfit", "personal": "copy", "algorithm": "ppo"},
    "PWFF+, block": {"name": "pwff_plus", "turning": ["*self_attn*"]},
}
# Which rows are measured on which pair of objectives, and on which seeds.
PLAN: tuple[tuple[str, tuple[str, ...], tuple[int, ...]], ...] = (
    ("caring", (*MAIN, *PFIT, *SINGLE), SEEDS),
    ("harmless", (*MAIN, *RULES), SEEDS),
    ("learned", ("PWFF", "PWFF+", "equal weights"), SEEDS),
)
SHORT: tuple[tuple[str, tuple[str, ...], tuple[int, ...]], ...] = (
    ("caring", ("PWFF", "PWFF+", "local", "equal weights"), (0, 1, 2)),
)


@dataclass(frozen=True)
class Case:
    """One run: its row, pair of objectives and seed, and its experiment."""

    row: str
    task: str
    seed: int
    values: dict[str, Any] = field(hash=False)

    @property
    def folder(self) -> str:
        """The name of its run directory."""
        return f"{self.task}-{self.row}-{self.seed}".replace(",", "").replace(" ", "-")


def cases(shared: Path, plan: tuple[tuple[str, tuple[str, ...], tuple[int, ...]], ...]
          ) -> Iterator[Case]:  # fmt: skip
    """Yield the cases of a plan, seed by seed."""
    for task, rows, seeds in plan:
        for seed in seeds:
            yield from (case(shared, row, task, seed) for row in rows)


def case(shared: Path, row: str, task: str, seed: int) -> Case:
    """Five clients with topics of their own: 18 steps of 48 answers each."""
    method = METHODS[row]
    values: dict[str, Any] = {
        "model": {"name": str(shared / "models" / "stories260k")},
        "adapter": BLOCK if row in ON_BLOCK else BESIDE,
        "data": {"name": "topics"},
        "clients": {"count": 5, "partition": "groups", "column": "topic", "test_fraction": 0},
        "cell": {"ideal": True},
        "method": {"rewards": task, "preferences": list(PREFERENCES), **method},
        "train": {
            "rounds": ROUNDS, "local_steps": STEPS, "evaluate_every": ROUNDS,
            "learning_rate": 4e-3 if row in ON_BLOCK else 7e-3,
        },
        # One cohort of all: so few clients are not worth trying what is fastest.
        "machine": {"threads": 1, "cohort": 5, "checkpoint_every": 1000},
        "seed": seed,
    }  # fmt: skip
    if task == "learned":
        values |= _learned(shared)
        values["method"]["rewards"] = _judges(shared)
    return Case(row, task, seed, values)


def _learned(shared: Path) -> dict[str, Any]:
    """Instructions to answer, dealt out evenly."""
    file = shared / "data" / "instruct_small" / "instructions_1k.jsonl.gz"
    return {
        "data": {
            "name": "instructions", "train": str(file), "prompt": ["instruction", "input"],
            "response": "output",
        },
        "clients": {"count": 5, "partition": "iid", "test_fraction": 0},
    }  # fmt: skip


def _judges(shared: Path) -> dict[str, Any]:
    """Polite for helpful, as too few pairs of helpfulness are at hand; harmless for safe."""
    data = shared / "data"
    return {
        "helpful": {
            "train": str(data / "pref_small" / "polite_preference_1k.jsonl.gz"),
            "prompt": ["instruction", "input"],
        },
        "safe": {"train": str(data / "hh_rlhf" / "harmless_base_test.jsonl.gz")},
    }
