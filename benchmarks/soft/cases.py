"""Which experiments are run: each a row, and the keys that differ from the base."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROUNDS, EVERY = 20, 4
IDEAL = {"cell": {"ideal": True}}
# 500 m, 10 mW, noise figure and fading of the preset: weak and unequal links.
WEAK = {
    "cell": {
        "preset": "legacy-macro", "radius_m": 500, "power_dbm": 10, "bandwidth_hz": 2e6,
        "packet_error": 0.0,
    }
}  # fmt: skip
FREE = {"name": "soft", "control": "none", "orthogonality": 0.0}
QUARTER = FREE | {"kept_ratio": 0.25}
TSFA = {"name": "soft", "orthogonality": 0.0, "latency_s": 0.35}

Row = tuple[str, dict[str, Any], dict[str, Any]]
IDEAL_ROW, SMALL = "ideal: dense, rank 8", "dense, rank 2"
SOFT, RANDOM = "SOFT 25 %", "random components 25 %"
TOP_K, NAIVE, SVD = "top-k of changes 25 %", "top-k of values 25 %", "SVD of changes 25 %"
SCHEDULED, LIMITED = "SOFT + TSFA", "SOFT, limit for each upload"
FOUR_BITS = "SOFT + TSFA, 4 bits"
OWN_RATIO, ROUND = "SOFT, a fixed part for each client", "SOFT + TSFA, round's slowest"
CODED, FEWER = "soft_coded", "soft_coded, 5 % of the numbers"
CODED_LIMITED, CODED_SCHEDULED = "soft_coded, limit for each upload", "soft_coded + TSFA, 0.12 s"
EQUAL, MIN_MAX = "dense, equal bands, 8 rounds", "dense, min-max bands, 8 rounds"


def _weak_rounds(rounds: int, allocation: str) -> dict[str, Any]:
    """Dense uploads over the weak links take seconds each, so these have fewer rounds."""
    cell = WEAK["cell"] | {"allocation": allocation}
    return {"cell": cell, "train": {"rounds": rounds, "evaluate_every": 1}}


# Everything arrives: what does sending a quarter of the bits cost?
SENT: list[Row] = [
    (IDEAL_ROW, {"name": "fedavg"}, IDEAL),
    (SOFT, QUARTER, IDEAL),
    (RANDOM, QUARTER | {"score": "random"}, IDEAL),
    (TOP_K, {"name": "topk"}, IDEAL),
    (SVD, {"name": "lora_svd"}, IDEAL),
    (SMALL, {"name": "fedavg"}, IDEAL | {"adapter": {"rank": 2, "alpha": 4}}),
    (NAIVE, {"name": "topk", "send": "value", "average": "total"}, IDEAL),
    (CODED, {"name": "soft_coded", "control": "none"}, IDEAL),
    (FEWER, {"name": "soft_coded", "control": "none", "kept_ratio": 0.05}, IDEAL),
]
# The same budget of latency: which way of keeping to it learns most?
SCHEDULES: list[Row] = [
    (SCHEDULED, TSFA, WEAK),
    (LIMITED, TSFA | {"control": "limit"}, WEAK),
    (FOUR_BITS, TSFA | {"value_bits": 4}, WEAK),
    (OWN_RATIO, TSFA | {"control": "client_ratio"}, WEAK),
    (ROUND, TSFA | {"control": "round"}, WEAK),
    (CODED_LIMITED, {"name": "soft_coded", "latency_s": 0.35, "control": "limit"}, WEAK),
    (CODED_SCHEDULED, {"name": "soft_coded", "latency_s": 0.12}, WEAK),
    (EQUAL, {"name": "fedavg"}, _weak_rounds(8, "equal")),
    (MIN_MAX, {"name": "fedavg"}, _weak_rounds(8, "min-max-delay")),
]
# One thing changed at a time, first seed.
ABLATIONS: list[Row] = [
    ("SOFT 25 %, Z = 1", QUARTER | {"average": "total"}, IDEAL),
    ("SOFT 25 %, best of all matrices", QUARTER | {"pool": "all"}, IDEAL),
    ("SOFT 25 %, by norm of the component", QUARTER | {"score": "norm"}, IDEAL),
    ("SOFT 25 %, mu = 0.01", QUARTER | {"orthogonality": 1e-2}, IDEAL),
    ("SOFT 25 %, error feedback 0.5", QUARTER | {"error_feedback": 0.5}, IDEAL),
    ("SOFT 25 %, error feedback 0.9", QUARTER | {"error_feedback": 0.9}, IDEAL),
    ("SOFT 25 %, by change and gradients (Fisher)", QUARTER | {"score": "fisher"}, IDEAL),
    ("SOFT 50 %", FREE | {"kept_ratio": 0.5}, IDEAL),
    ("SOFT 100 %, 4 bits", FREE | {"value_bits": 4}, IDEAL),
    ("SOFT 25 %, 4 bits", QUARTER | {"value_bits": 4}, IDEAL),
    (
        "SVD of changes 50 %, 4 bits",
        {"name": "lora_svd", "kept_ratio": 0.5, "value_bits": 4},
        IDEAL,
    ),
    (
        "soft_coded, nothing owed",
        {"name": "soft_coded", "control": "none", "error_feedback": 0.0},
        IDEAL,
    ),
    ("dense, residual in the frozen weights (FedEx-LoRA)", {"name": "fedex_lora"}, IDEAL),
    ("dense, A frozen (FFA-LoRA)", {"name": "ffa_lora"}, IDEAL),
]
# The size of what averaging A and B apart leaves out, over ranks and skews; first seed.
COVARIANCE: list[Row] = [
    (
        f"everything sent, rank {rank}, {skew}",
        FREE,
        IDEAL | {"adapter": {"rank": rank, "alpha": 2 * rank}, "clients": clients},
    )
    for rank, skew, clients in (
        (8, "Dirichlet 0.5", {}),
        (2, "Dirichlet 0.5", {}),
        (32, "Dirichlet 0.5", {}),
        (8, "Dirichlet 0.1", {"alpha": 0.1}),
        (8, "IID", {"partition": "iid"}),
    )
]
# An easier start: a frozen head of ten examples a class; first seed.
_TEN = IDEAL | {"model": {"prototypes": 10}}
EASY: list[Row] = [
    ("ten examples a class: ideal", {"name": "fedavg"}, _TEN),
    ("ten examples a class: SOFT 25 %", QUARTER, _TEN),
    ("ten examples a class: soft_coded", {"name": "soft_coded", "control": "none"}, _TEN),
]
# The budgets of latency that rows are to keep, in seconds.
BUDGETS = dict.fromkeys((SCHEDULED, LIMITED, FOUR_BITS, OWN_RATIO, ROUND, CODED_LIMITED), 0.35)
BUDGETS[CODED_SCHEDULED] = 0.12
# The short profile, three seeds: the main rows.
SHORT = (IDEAL_ROW, SOFT, SVD, SMALL, CODED, SCHEDULED, FOUR_BITS, LIMITED)
# A decoder and instructions, clients IID; first seed.
DECODER: list[Row] = [
    ("decoder: ideal", {"name": "fedavg"}, IDEAL),
    ("decoder: SOFT 25 %", QUARTER, IDEAL),
    ("decoder: SOFT + TSFA, 4 bits", TSFA | {"value_bits": 4, "latency_s": 0.15}, WEAK),
    ("decoder: soft_coded", {"name": "soft_coded", "control": "none"}, IDEAL),
]


@dataclass(frozen=True)
class Case:
    """One run: its row in the tables, its seed, its experiment."""

    row: str
    seed: int
    values: dict[str, Any] = field(hash=False)

    @property
    def folder(self) -> str:
        """The name of its run directory."""
        plain = "".join(c if c.isalnum() or c in ".=" else "-" for c in self.row)
        return f"{plain}/{self.seed}"


def cases(shared: Path, seeds: list[int]) -> Iterator[Case]:
    """Yield all cases, seed after seed; those of one seed last."""
    for seed in seeds:
        yield from (_case(shared, row, seed) for row in (*SENT, *SCHEDULES))
    yield from (_case(shared, row, seeds[0]) for row in (*ABLATIONS, *EASY, *COVARIANCE))
    yield from (_decoder_case(shared, row, seeds[0]) for row in DECODER)


def _case(shared: Path, row: Row, seed: int) -> Case:
    """Banking77 on MiniLM, ten clients, Dirichlet 0.5, a frozen head of one example a class."""
    title, method, sections = row
    banking = shared / "data" / "banking77"
    values: dict[str, Any] = {
        "model": {
            "name": str(shared / "models" / "minilm-l6-v2"), "max_tokens": 16, "prototypes": 1,
        },
        "adapter": {"rank": 8, "alpha": 16, "targets": ["query", "value"], "top_layers": 2},
        "data": {
            "name": "banking77", "train": str(banking / "train.csv"),
            "test": str(banking / "test.csv"), "label": "category",
        },
        "clients": {"count": 10, "partition": "dirichlet", "alpha": 0.5, "test_fraction": 0},
        "train": {
            "rounds": ROUNDS, "local_steps": 8, "batch_size": 8, "learning_rate": 1e-2,
            "evaluate_every": EVERY,
        },
        "machine": {"threads": 1, "checkpoint_every": 1000},
        "method": method,
        "seed": seed,
    }  # fmt: skip
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return Case(title, seed, values)


def _decoder_case(shared: Path, row: Row, seed: int) -> Case:
    """Instructions on a small decoder: the same clients, steps and rates, all layers adapted."""
    case = _case(shared, row, seed)
    values = case.values | {
        "model": {"name": str(shared / "models" / "stories260k"), "max_tokens": 128},
        "adapter": {"rank": 8, "alpha": 16},
        "data": {
            "name": "instructions",
            "train": str(shared / "data" / "instruct_small" / "instructions_1k.jsonl.gz"),
            "prompt": ["instruction", "input"], "response": "output",
        },
        "clients": {"count": 10, "partition": "iid", "test_fraction": 0},
    }  # fmt: skip
    return Case(case.row, seed, values)
