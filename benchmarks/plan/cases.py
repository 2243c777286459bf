"""What is planned and then run: each method on links that it is made for, and harder ones."""

from __future__ import annotations

from typing import Any

ROUNDS = 6
WEAK = {
    "preset": "legacy-macro", "radius_m": 500, "power_dbm": 10, "bandwidth_hz": 2e6,
}  # fmt: skip
NARROW = {"preset": "urban-micro", "bandwidth_hz": 1e6}
TOPICS: dict[str, Any] = {
    "data": {"name": "topics"},
    "model": {},
    "adapter": {"rank": 4},
    "clients": {"count": 5, "partition": "groups", "column": "topic", "test_fraction": 0},
    "train": {"rounds": ROUNDS, "local_steps": 2, "evaluate_every": ROUNDS},
}
ANSWERS = {
    "answers": {"prompts": 4, "samples": 4},
    "examined": {"prompts": 2, "samples": 1},
}
CASES: dict[str, dict[str, Any]] = {
    "fedavg": {"cell": NARROW},
    "fedavg, bfloat16, five of ten by proportional fairness": {
        "cell": NARROW,
        "method": {"name": "fedavg", "value_type": "bfloat16"},
        "clients": {"per_round": 5, "selection": "proportional-fair"},
    },
    "fedavg, weak links, deadline, statistical CSI": {
        "cell": WEAK | {"csi": "statistical", "deadline_s": 20.0},
    },
    "fedavg, NR's schemes, chase combining, waypoints": {
        "cell": NARROW
        | {"rate": {"law": "mcs"}, "combining": "chase", "mobility": "random-waypoint"},
    },
    "fedavg, resource blocks": {
        "cell": NARROW | {"allocation": "resource-blocks"},
        "clients": {"per_round": 4},
    },
    "fedavg, least energy under a deadline": {
        "cell": NARROW | {"bandwidth_hz": 5e6, "allocation": "min-energy", "deadline_s": 10.0}
    },
    "fedprox": {"cell": NARROW, "method": "fedprox"},
    "ffa_lora": {"cell": NARROW, "method": "ffa_lora"},
    "topk": {"cell": NARROW, "method": "topk"},
    "lora_svd": {"cell": NARROW, "method": "lora_svd"},
    "flexlora": {"cell": NARROW, "method": "flexlora"},
    "hetlora": {"cell": NARROW, "method": "hetlora"},
    "fedex_lora": {"cell": NARROW, "method": "fedex_lora"},
    "feddf": {"cell": NARROW, "method": "feddf"},
    "fedmd": {"cell": NARROW, "method": "fedmd"},
    "soft with TSFA": {"cell": WEAK, "method": {"name": "soft", "latency_s": 0.5}},
    "soft, a limit for each upload": {
        "cell": WEAK,
        "method": {"name": "soft", "latency_s": 0.5, "control": "limit"},
    },
    "pftt": {
        "cell": NARROW,
        "method": {"name": "pftt", "ranks": "examples"},
        "adapter": {"kind": "lora+bottleneck", "rank": 16, "bottleneck": 8, "top_layers": 2},
    },
    "pfit": TOPICS | {"cell": NARROW, "method": {"name": "pfit", "rewards": "caring", **ANSWERS}},
    "pwff_plus": TOPICS
    | {"cell": NARROW, "method": {"name": "pwff_plus", "rewards": "caring", **ANSWERS}},
    "adald": {"cell": NARROW | {"allocation": "equal"}, "method": "adald"},
    "adald_coded": {"cell": NARROW | {"allocation": "equal"}, "method": "adald_coded"},
    "soft_coded": {"cell": WEAK, "method": {"name": "soft_coded", "latency_s": 0.2}},
}


def values(sections: dict[str, Any]) -> dict[str, Any]:
    """Return a case's experiment."""
    if sections.get("data") == TOPICS["data"]:
        return {"name": "plan", **sections}
    base: dict[str, Any] = {
        "name": "plan",
        "adapter": {"rank": 8, "targets": ["query", "value"], "top_layers": 2},
        "data": {"train_limit": 700, "test_limit": 40, "public_rows": 150},
        "clients": {"count": 10, "partition": "dirichlet", "alpha": 0.5, "test_fraction": 0},
        "train": {"rounds": ROUNDS, "local_steps": 3, "evaluate_every": ROUNDS},
    }
    for name, section in sections.items():
        merged = isinstance(section, dict) and name in base and section.get("kind") is None
        base[name] = {**base[name], **section} if merged else section
    return base
