"""Personal tuning on Banking77: a row is what is shared, a head, and a skew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Head = Literal["frozen", "shared", "private"]
SKEWS: dict[str, dict[str, Any]] = {
    "0.1": {"partition": "dirichlet", "alpha": 0.1},
    "0.5": {"partition": "dirichlet", "alpha": 0.5},
    "IID": {"partition": "iid"},
}
BOTH, ADAPTER, LORA = "lora+bottleneck", "bottleneck", "lora"
WIDTH, NARROW = 16, 8  # of the bottlenecks

# What a row shares: the kind of adapter, and the patterns that stay private beside a private head.
SHARING: dict[str, tuple[str, dict[str, Any]]] = {
    "PFTT": (BOTH, {"name": "pftt"}),
    "PFTT, width 8": (BOTH, {"name": "pftt"}),
    "PFTT, 8 bit": (BOTH, {"name": "pftt", "change_bits": 8}),
    "PFTT, 4 bit": (BOTH, {"name": "pftt", "change_bits": 4}),
    "PFTT+": (BOTH, {"name": "pftt_plus"}),
    "adapter shared": (ADAPTER, {"name": "fedavg"}),
    "LoRA shared": (LORA, {"name": "fedavg"}),
    "both shared": (BOTH, {"name": "fedavg"}),
    "only the head shared": (BOTH, {"name": "fedavg", "private": ["*.lora_*", "*bottleneck*"]}),
    "local": (BOTH, {"name": "fedavg", "private": ["*"]}),
}
# Rows by head; a frozen one leaves nothing that only the head could share.
HEADS: dict[Head, tuple[str, ...]] = {
    "frozen": (
        "PFTT", "PFTT, width 8", "PFTT, 8 bit", "PFTT, 4 bit", "PFTT+",
        "adapter shared", "LoRA shared", "both shared", "local",
    ),
    "shared": ("PFTT", "adapter shared", "LoRA shared", "both shared", "only the head shared"),
    "private": ("PFTT", "adapter shared", "local"),
}  # fmt: skip

MAIN = ("PFTT", "PFTT+", "adapter shared", "LoRA shared", "both shared", "local")
Plan = tuple[tuple[Head, str, tuple[str, ...], tuple[int, ...]], ...]
SEEDS = (0, 1, 2)
# What is measured: head, skew, rows, seeds.
PLAN: Plan = (
    *(("frozen", skew, MAIN, SEEDS) for skew in SKEWS),
    *(("private", skew, ("adapter shared",), SEEDS) for skew in SKEWS),
    ("frozen", "0.5", ("PFTT, width 8", "PFTT, 8 bit", "PFTT, 4 bit"), SEEDS),
    *(("shared", skew, HEADS["shared"], (0,)) for skew in SKEWS),
    *(("private", skew, ("PFTT",), (0,)) for skew in SKEWS),
)
SHORT: Plan = (("frozen", "0.5", ("PFTT", "PFTT+", "adapter shared", "LoRA shared"), SEEDS),)


@dataclass(frozen=True)
class Case:
    """One run: its row, head, skew and seed, and its experiment."""

    row: str
    head: Head
    skew: str
    seed: int
    values: dict[str, Any] = field(hash=False)

    @property
    def folder(self) -> str:
        """The name of its run directory."""
        name = f"{self.row}-{self.head}-{self.skew}-{self.seed}"
        return name.replace(",", "").replace(" ", "-")


def cases(shared: Path, plan: Plan) -> Iterator[Case]:
    """Yield the cases of a plan, those of one seed and skew together: they have the same texts."""
    for head, skew, rows, seeds in plan:
        for seed in seeds:
            yield from (case(shared, row, head, skew, seed) for row in rows)


def case(shared: Path, row: str, head: Head, skew: str, seed: int) -> Case:
    """Ten clients of some 200 training texts; four fifths of their rows test them."""
    kind, method = SHARING[row]
    banking = shared / "data" / "banking77"
    adapter: dict[str, Any] = {"kind": kind, "top_layers": 2}
    if kind != ADAPTER:
        adapter |= {"rank": 8, "alpha": 16, "targets": ["query", "value"]}
    if kind != LORA:
        adapter |= {"bottleneck": NARROW if row == "PFTT, width 8" else WIDTH}
    private = method.get("private", ["*.lora_*"] if method["name"] == "pftt" else [])
    if head == "private" and private != ["*"]:
        private = [*private, "classifier.*"]
    values: dict[str, Any] = {
        "model": {"name": str(shared / "models" / "minilm-l6-v2"), "max_tokens": 16},
        "adapter": adapter,
        "data": {
            "name": "banking77", "train": str(banking / "train.csv"),
            "test": str(banking / "test.csv"), "label": "category",
        },
        "clients": {"count": 10, "test_fraction": 0.8, "global_texts": 500} | SKEWS[skew],
        "cell": {"ideal": True},
        "train": {
            "rounds": 16, "local_steps": 5, "batch_size": 10, "learning_rate": 4e-3,
            "head_learning_rate": 5e-3, "evaluate_every": 16,
        },
        "machine": {"threads": 1, "checkpoint_every": 1000},
        "method": {**method, "private": private},
        "seed": seed,
    }  # fmt: skip
    if head == "frozen":
        values["model"]["prototypes"] = 10
    return Case(row, head, skew, seed, values)
