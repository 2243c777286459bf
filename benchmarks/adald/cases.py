"""Which experiments are run: each a title, a group, and the keys that differ from its base."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.adald import claims as of

# 2000 private texts over ten clients, Dirichlet 0.1; SNR uniform in 0 to 20 dB each round, equal
# bands, half a second for an upload, Shannon rates up to 5.55 bit/s/Hz, no packet errors.
TRAIN = {
    "learning_rate": 1e-3, "head_learning_rate": 2e-3, "adam_beta2": 0.9, "clip_norm": None,
    "evaluate_every": 1,
}  # fmt: skip
CELL = {"snr_db": [0, 20], "allocation": "equal", "packet_error": 0.0, "rate": {"gap_db": 0}}
MACHINE = {"threads": 1, "checkpoint_every": 1000}
ALL = {"name": "fedmd"}
ADALD = {"name": "adald"}
CODED = {"name": "adald_coded"}
# All logits never fit into half a second here, so they travel for free: only their bits count.
FREE = {"cell": {"ideal": True}}


@dataclass(frozen=True)
class Inputs:
    """Folders of the real data and models."""

    banking77: Path
    minilm: Path
    stories: Path
    tinystories: Path
    shakespeare: Path
    proxy: Path


@dataclass(frozen=True)
class Case:
    """One run: its group and row in the tables, its seed, its experiment."""

    group: str
    row: str
    seed: int
    values: dict[str, Any] = field(hash=False)

    @property
    def folder(self) -> str:
        """The name of its run directory."""
        plain = "".join(c if c.isalnum() or c in ".=" else "-" for c in self.row)
        return f"{self.group}/{plain}/{self.seed}"


def encoder(inputs: Inputs, method: dict[str, Any], seed: int, **sections: Any) -> dict[str, Any]:
    """MiniLM with LoRA on query and value of its top two layers, 300 public texts."""
    base = {
        "model": {"name": str(inputs.minilm), "max_tokens": 24},
        "adapter": {"rank": 8, "alpha": 16, "targets": ["query", "value"], "top_layers": 2},
        "data": _banking(inputs.banking77, 300, 770),
        "clients": {"count": 10, "partition": "dirichlet", "alpha": 0.1, "test_fraction": 0},
        "cell": CELL | {"bandwidth_hz": 600e3},
        "train": TRAIN | {"rounds": 8, "local_steps": 6},
    }
    return _merged(base, method, seed, sections)


def one_token(inputs: Inputs, method: dict[str, Any], seed: int, **sections: Any) -> dict[str, Any]:
    """The language of one-token sentences (proxy.py), 500 public texts."""
    steps = {"public_steps": 6, "server_steps": 20} if method["name"] in _DISTILLING else {}
    base = {
        "model": {"name": str(inputs.proxy / "model"), "max_tokens": 8},
        "adapter": {"rank": 8, "alpha": 16, "targets": ["value"]},
        "data": _banking(inputs.proxy, 500, 1540),
        "clients": {"count": 10, "partition": "dirichlet", "alpha": 0.1, "test_fraction": 0},
        "cell": CELL | {"bandwidth_hz": 1e6},
        "train": TRAIN | {"rounds": 12, "local_steps": 8},
    }
    return _merged(base, steps | method, seed, sections)


def decoder(inputs: Inputs, method: dict[str, Any], seed: int, **sections: Any) -> dict[str, Any]:
    """A pretrained decoder with a vocabulary of 512, 200 public texts, clients alike."""
    base = {
        "model": {"name": str(inputs.stories), "max_tokens": 64},
        "adapter": {"rank": 8, "alpha": 16, "targets": ["q_proj", "v_proj"]},
        "data": {
            "name": "tinystories", "train": str(inputs.tinystories), "train_limit": 2100,
            "test_limit": 200, "public_rows": 200,
        },
        "clients": {"count": 10, "partition": "iid", "test_fraction": 0},
        "cell": CELL | {"bandwidth_hz": 6e6},
        "train": TRAIN | {"rounds": 8, "local_steps": 8, "learning_rate": 5e-3},
    }  # fmt: skip
    return _merged(base, method, seed, sections)


_DISTILLING = ("fedmd", "adald", "adald_coded")


def cases(inputs: Inputs, seeds: list[int], table_seeds: list[int]) -> Iterator[Case]:
    """Yield all cases, the ones that the claims need first."""
    yield from (_encoder(inputs, row, seeds[0]) for row in _MAIN)
    for seed in seeds:
        for row, method, sections in _PROXY:
            if seed == seeds[0] or row in CLAIMED["one-token"]:
                yield Case("one-token", row, seed, one_token(inputs, method, seed, **sections))
    yield from _tokens(inputs)
    for seed in seeds[1:]:
        yield from (_encoder(inputs, row, seed) for row in _MAIN if row[0] in CLAIMED["encoder"])
    yield from _unequal(inputs)
    yield from _projections(inputs)
    for seed in table_seeds:
        yield from _table(inputs, seed)


def _encoder(inputs: Inputs, row: Row, seed: int) -> Case:
    title, method, sections = row
    return Case("encoder", title, seed, encoder(inputs, method, seed, **sections))


# Learning rates at which parameter sharing does well (benchmarks/first_light).
FASTER = {"train": {"learning_rate": 3e-3, "head_learning_rate": 1e-2}}
FIXED = ADALD | {"k": 10, "aggregation": "mag"}
PROJECTED = ADALD | {"projection_weight": 0.3}
Row = tuple[str, dict[str, Any], dict[str, Any]]
# The rows that claims are about have all seeds, the others the first.
CLAIMED = {
    "encoder": (
        *of.ALL_LOGITS, of.ADALD, of.CODED, "adaptive k, zero padding", "k = 10, mag, outage",
    ),
    "one-token": (
        *of.ALL_LOGITS, of.ADALD, of.CODED, *of.TOP_K, "k = 10, mag, channel ignored",
    ),
}  # fmt: skip
_MAIN: list[Row] = [
    ("all logits, mean", ALL | {"aggregation": "mask"}, FREE),
    ("all logits, prob", ALL | {"aggregation": "prob"}, FREE),
    ("all logits, mag", ALL | {"aggregation": "mag"}, FREE),
    ("AdaLD (mag)", ADALD, {}),
    ("adald_coded", CODED, {}),
    ("adaptive k, zero padding", ADALD | {"aggregation": "zero"}, {}),
    ("k = 10, mag, outage", FIXED, {}),
    ("AdaLD + h", PROJECTED, {}),
]
_PROXY: list[Row] = [
    *_MAIN[:-1],
    ("adaptive k, mask", ADALD | {"aggregation": "mask"}, {}),
    ("adaptive k, count", ADALD | {"aggregation": "count"}, {}),
    ("adaptive k, prob + residual", ADALD | {"aggregation": "prob"}, {}),
    ("k = 10, mag, channel ignored", FIXED | {"uplink_seconds": None}, {}),
    ("k = 10 random, mag, channel ignored",
     FIXED | {"uplink_seconds": None, "selection": "random"}, {}),
    ("AdaLD, floor", ADALD | {"unsent": "floor"}, {}),
    ("AdaLD, server's logits down", ADALD | {"downlink": "server", "downlink_entries": 20}, {}),
    ("+ k <= 12", ADALD | {"k_max": 12}, {}),
    ("+ 4-bit values", ADALD | {"k_max": 12, "value_bits": 4}, {}),
    ("+ range coder", CODED | {"share": 1.0, "downlink_entries": None}, {}),
    ("+ 8 entries down", CODED | {"share": 1.0}, {}),
    ("coded, 30 % of the texts from the start", CODED | {"share": 0.3, "whole_rounds": 0}, {}),
    ("coded, k <= 6", CODED | {"k_max": 6}, {}),
    ("coded, k <= 4", CODED | {"k_max": 4}, {}),
    ("coded, 3 bits", CODED | {"value_bits": 3}, {}),
    ("FedIT (adapters travel)", {"name": "fedavg", "value_type": "float16"}, FREE),
    ("FedIT, rates of first_light", {"name": "fedavg", "value_type": "float16"}, FREE | FASTER),
    ("FedDF, rates of first_light",
     {"name": "feddf", "value_type": "float16", "server_steps": 20}, FREE | FASTER),
    ("FedDF", {"name": "feddf", "value_type": "float16", "server_steps": 20}, FREE),
    ("local only", {"name": "fedavg", "private": ["*"]},
     FREE | {"clients": {"test_fraction": 0.1}}),
    ("centralised", {"name": "fedavg"}, FREE | {"clients": {"count": 1, "partition": "iid"},
                                                "train": {"local_steps": 80}}),
    ("centralised, rates of first_light", {"name": "fedavg"},
     FREE | {"clients": {"count": 1, "partition": "iid"},
             "train": {"local_steps": 80, **FASTER["train"]}}),
]  # fmt: skip


def _unequal(inputs: Inputs) -> Iterator[Case]:
    """Clients of three layers, a server of six."""
    server = {
        "server": {"model": {"name": str(inputs.minilm), "max_tokens": 24}},
        "model": {"layers": 3}, "train": {"rounds": 15},
    }  # fmt: skip
    for row, method in (("AdaLD (mag)", ADALD), ("adald_coded", CODED)):
        yield Case("3 layers, 6 at the server", row, 0, encoder(inputs, method, 0, **server))
    turned = PROJECTED | {"gauge": "procrustes", "train_a": True, "projection_bits": 4}
    values = encoder(inputs, turned, 0, **server)
    yield Case("3 layers, 6 at the server", "AdaLD + h, 4 bits, Procrustes", 0, values)


def _tokens(inputs: Inputs) -> Iterator[Case]:
    """Token logits; tinystories is what the model was trained on, shakespeare is not."""
    shakespeare = {"data": {"name": "shakespeare", "train": str(inputs.shakespeare)}}
    for group, data in (("tinystories", {}), ("shakespeare", shakespeare)):
        for row, method, sections in (
            # So few entries that no message has 1 % of the bits of all token logits.
            ("AdaLD (mag)", ADALD | {"k_max": 3}, {}),
            ("adald_coded", CODED | {"k_max": 6}, {}),
            ("AdaLD, k <= 8", ADALD | {"k_max": 8}, {}),
            ("adald_coded, k <= 8", CODED | {"k_max": 8}, {}),
            ("AdaLD, k <= 8, floor", ADALD | {"k_max": 8, "unsent": "floor"}, {}),
            ("AdaLD + h, k <= 8", PROJECTED | {"k_max": 8}, {}),
            ("FedIT (adapters travel)", {"name": "fedavg", "value_type": "float16"}, FREE),
        ):
            yield Case(group, row, 0, decoder(inputs, method, 0, **data, **sections))


def _projections(inputs: Inputs) -> Iterator[Case]:
    """Where could projections help? Small k; A that is trained; few bits for h."""
    few = {"k": 2, "uplink_seconds": None}
    for row, method in (
        ("k = 2", ADALD | few),
        ("k = 2, + h", PROJECTED | few),
        ("k = 2, + h, lambda 3, tap all, 4 bits",
         PROJECTED | few | {"projection_weight": 3, "tap": "all", "projection_bits": 4}),
        ("k = 2, A trained", ADALD | few | {"train_a": True}),
        ("k = 2, A trained, + h, Procrustes",
         PROJECTED | few | {"train_a": True, "gauge": "procrustes", "projection_weight": 3}),
    ):  # fmt: skip
        yield Case("projections", row, 0, encoder(inputs, method, 0))


TABLE_ALPHAS = {"0.1": {"alpha": 0.1}, "0.5": {"alpha": 0.5}, "IID": {"partition": "iid"}}
TABLE_BANDS = (40e3, 100e3, 250e3)
TABLE_ROWS = [
    ("mag (AdaLD)", ADALD),
    ("adald_coded", CODED),
    ("zero padding", ADALD | {"aggregation": "zero"}),
    ("mask", ADALD | {"aggregation": "mask"}),
    ("mag, k = 10, outage", FIXED),
    ("prob + residual", ADALD | {"aggregation": "prob"}),
    ("count", ADALD | {"aggregation": "count"}),
    ("mag + h", PROJECTED),
]


def _table(inputs: Inputs, seed: int) -> Iterator[Case]:
    for row, method in TABLE_ROWS:
        for title, clients in TABLE_ALPHAS.items():
            for band in TABLE_BANDS:
                sections = {"clients": clients, "cell": {"bandwidth_hz": 10 * band}}
                values = one_token(inputs, method, seed, **sections)
                values["train"]["rounds"] = 10
                yield Case(f"table {title} {band / 1e3:.0f} kHz", row, seed, values)


def _banking(folder: Path, public: int, test: int) -> dict[str, Any]:
    return {
        "name": "banking77", "train": str(folder / "train.csv"), "test": str(folder / "test.csv"),
        "label": "category", "train_limit": 2000 + public, "test_limit": test,
        "public_rows": public,
    }  # fmt: skip


def _merged(
    base: dict[str, Any], method: dict[str, Any], seed: int, sections: dict[str, Any]
) -> dict[str, Any]:
    values = base | {"method": method, "seed": seed, "machine": MACHINE}
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return values
