"""A backbone of half the bytes: weights in bfloat16, what is learned in float32."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from airtune.build import build
from airtune.experiment import Experiment
from airtune.learning.config import MachineConfig
from airtune.learning.export import write_adapter
from airtune.learning.learner import Assignment, Learner
from airtune.learning.phase import Phase, supervised


def trained(parts, cohort, steps=8):
    learner = Learner(parts.model, parts.learner.config, 0, MachineConfig(cohort=cohort))
    tasks = [
        Assignment(
            c, 1, dict(parts.model.initial), [Phase(parts.clients.data[c], supervised, steps)]
        )
        for c in range(5)
    ]
    list(learner.train(tasks))
    return tasks


CASES = [
    ("classification", {}),
    ("classification", {"model": {"pooling": "native"}}),
    ("causal", {}),
    ("classification", {"model": {"pooling": "native"}, "adapter": {"kind": "ia3"}}),
    ("causal", {"adapter": {"kind": "ia3", "rank": 8}}),
]


@pytest.mark.parametrize(("task", "sections"), CASES)
def test_a_bfloat16_backbone_trains_float32_adapters(small, tmp_path, task, sections):
    model = sections.get("model", {})
    half = build(Experiment(**small(task, **{**sections, "model": {**model, "dtype": "bfloat16"}})))
    full = build(Experiment(**small(task, **sections)))
    frozen = [p for n, p in half.backbone.module.named_parameters() if "classifier" not in n]
    assert {p.dtype for p in frozen} == {torch.bfloat16}
    assert all(value.dtype == torch.float32 for value in half.model.initial.values())
    tasks, exact = trained(half, 5), trained(full, 5)
    for one, other in zip(tasks, exact, strict=True):
        assert one.losses[0] == pytest.approx(other.losses[0], rel=0.02)
        assert not one.diverged
        assert all(value.dtype == torch.float32 for value in one.adapter.values())
        assert np.mean(one.losses) == pytest.approx(np.mean(other.losses), rel=0.05)
    write_adapter(half.model, tasks[0].adapter, half.table.classes, tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name, value in tasks[0].adapter.items():
        assert torch.equal(saved[f"base_model.model.{name}"], value), name
    assert "bfloat16" in "".join(
        (tmp_path / "adapter" / name).read_text()
        for name in ("README.md", "base_model.py")
        if (tmp_path / "adapter" / name).exists()
    )


def test_cohorts_of_a_bfloat16_backbone_equal_one_by_one_training(small):
    parts = build(Experiment(**small(model={"dtype": "bfloat16"})))
    alone, together = trained(parts, 1), trained(parts, 5)
    for one, other in zip(alone, together, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-2)


def test_a_compiled_model_gives_the_same_losses(small, monkeypatch):
    """Traced by torch.compile and run without its C++ compiler, which takes a minute."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f: compile_(f, backend="eager"))
    short = {"max_tokens": 8}  # one shape of batches: each one is traced anew
    plain = trained(build(Experiment(**small(model=short))), 5, steps=3)
    values = small(model=short, machine={"compile": True})
    compiled = trained(build(Experiment(**values)), 5, steps=3)
    for one, other in zip(plain, compiled, strict=True):
        assert one.losses == pytest.approx(other.losses, abs=1e-5)
