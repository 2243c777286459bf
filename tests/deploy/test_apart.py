"""A run over devices is the run in one process: same adapters, same bits, nothing else leaves."""

from __future__ import annotations

import pytest
import torch

from airtune.federation import ledger


def bits(folder):
    """What the ledger says but for scores of clients' own models, which are means of small sets."""
    return [
        {key: value for key, value in row.items() if not key.startswith("personal_")}
        for row in ledger.read(folder / "ledger.jsonl")
    ]


CASES = {
    "fedavg": ("classification", {}),
    "causal": ("causal", {}),
    "private": ("classification", {"method": {"name": "fedavg", "private": ["classifier.*"]}}),
    "ranks": (
        "classification",
        {"method": {"name": "pftt", "ranks": "examples"}, "adapter": {"kind": "lora+bottleneck"}},
    ),
    "soft": ("classification", {"method": "soft", "cell": {"preset": "urban-micro"}}),
    "distilled": (
        "classification",
        {"method": {"name": "adald", "warm_up_steps": 1, "public_steps": 1, "server_steps": 1}},
    ),
}


@pytest.mark.parametrize("case", CASES, ids=CASES)
def test_a_run_over_devices_equals_the_run_in_one_process(
    case, three, in_process, devices, serve, tmp_path
):
    task, sections = CASES[case]
    values = three(task, **sections)
    whole, parts, one = in_process(values)
    folder, _, other = serve(values, devices(parts), table=parts.table)
    assert list(one.adapter) == list(other.adapter)
    assert all(torch.equal(one.adapter[name], other.adapter[name]) for name in one.adapter)
    assert bits(whole) == bits(folder)
    accuracies = [
        {client: own["accuracy"] for client, own in run.personal.items()} for run in (one, other)
    ]
    assert accuracies[0] == accuracies[1]
    for client, own in one.personal.items():
        assert other.personal[client]["loss"] == pytest.approx(own["loss"], rel=1e-5)
