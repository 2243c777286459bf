"""An exported folder that peft does not know gives the same logits without airtune."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from airtune.build import build
from airtune.experiment import Experiment
from airtune.learning.export import write_adapter
from airtune.learning.low_rank import matrices
from airtune.learning.shifts import shift_name
from airtune.learning.standalone import attach

BESIDE = {"kind": "lora+bottleneck", "bottleneck": 4, "bottleneck_bias": False}
KINDS = [{"kind": "bottleneck", "bottleneck": 4}, BESIDE, {"kind": "blocks", "top_layers": 1}]


def noisy(parts):
    draw = torch.Generator().manual_seed(0)
    return {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=draw)
        for name, tensor in parts.model.initial.items()
    }


def expected(parts, adapter):
    batch = parts.evaluator._test.batch(np.arange(4))
    parts.model.slots.load([adapter])
    with torch.inference_mode():
        return batch, parts.model.logits(batch)


def test_readmes_load_what_was_trained_in_a_process_without_airtune(small, tmp_path):
    """One process for all kinds: to start it takes seconds."""
    script = "import os, sys, torch\nsys.modules['airtune'] = sys.modules['peft'] = None\n"
    script += "sys.path.insert(0, '')\n"
    for adapter in KINDS:
        parts = build(Experiment(**small(adapter=adapter)))
        tensors = noisy(parts)
        folder = tmp_path / adapter["kind"]
        write_adapter(parts.model, tensors, parts.table.classes, folder)
        saved = load_file(folder / "adapter.safetensors")
        assert saved.keys() == tensors.keys()
        assert all(torch.equal(saved[name], tensor) for name, tensor in tensors.items())
        assert json.loads((folder / "labels.json").read_text()) == parts.table.classes
        assert not (folder / "adapter_config.json").exists()
        torch.save(expected(parts, tensors), folder / "expected.pt")
        (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.S)
        script += (
            f"os.chdir({str(folder)!r})\n"
            "for name in ('load', 'base_model'):\n"
            "    sys.modules.pop(name, None)\n"
            f"{code}\n"
            "batch, expected = torch.load('expected.pt')\n"
            "inputs = {k: batch[k] for k in ('input_ids', 'attention_mask')}\n"
            "with torch.no_grad():\n"
            "    print(float((model(**inputs).logits - expected).abs().max()))\n"
        )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    errors = [float(line) for line in done.stdout.splitlines()[-len(KINDS) :]]
    assert len(errors) == len(KINDS)
    assert max(errors) < 1e-5


def loaded(folder, monkeypatch):
    """The model that a folder's load.py makes."""
    monkeypatch.syspath_prepend(str(folder))
    for name in ("load", "base_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import load

    return load.load()


MODELS = [
    ("classification", "Bert", {"pooling": "native"}, KINDS[0], 1e-5),
    ("classification", "GPT2", {}, BESIDE, 1e-5),
    ("causal", "GPT2", {}, KINDS[2], 1e-5),
    ("causal", "Llama", {"layers": 1}, BESIDE | {"targets": ["o_proj", "q_proj"]}, 1e-5),
    ("causal", "Mixtral", {}, KINDS[2], 1e-5),
    ("causal", "Llama", {"dtype": "bfloat16"}, BESIDE | {"targets": ["o_proj"]}, 5e-3),
    ("causal", "Mixtral", {"dtype": "bfloat16"}, KINDS[2], 5e-3),
    ("causal", "GPT2", {"dtype": "bfloat16"}, KINDS[2], 5e-3),
    ("classification", "Bert", {"pooling": "native", "dtype": "bfloat16"}, KINDS[2], 5e-3),
]


@pytest.mark.parametrize(("task", "kind", "model", "adapter", "close"), MODELS, ids=str)
def test_models_of_any_kind_load_with_their_tensors(
    small, tmp_path, checkpoint, monkeypatch, task, kind, model, adapter, close
):
    model = {"name": checkpoint(kind, task == "causal"), **model}
    parts = build(Experiment(**small(task, adapter=adapter, model=model)))
    tensors = noisy(parts)
    folder = tmp_path / "adapter"
    write_adapter(parts.model, tensors, parts.table.classes, folder)
    batch, wanted = expected(parts, tensors)
    plain = loaded(folder, monkeypatch)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        got = plain(**inputs).logits
        before = parts.backbone.module(**inputs).logits
    assert torch.allclose(got.float(), wanted.float(), atol=close)
    assert (before.float() - wanted.float()).abs().max() > 10 * close


def test_shifts_of_frozen_weights_go_along_as_components(small, tmp_path, monkeypatch):
    parts = build(Experiment(**small(adapter=BESIDE)))
    tensors, draw = noisy(parts), torch.Generator().manual_seed(1)
    matrix = next(m for m in matrices(tensors) if m.endswith("value"))
    shift = 0.1 * torch.randn(32, 2, generator=draw) @ torch.randn(2, 32, generator=draw)
    carried = {**tensors, shift_name(matrix): shift}
    write_adapter(parts.model, carried, parts.table.classes, tmp_path / "adapter")
    batch, wanted = expected(parts, carried)
    plain = loaded(tmp_path / "adapter", monkeypatch)
    with torch.no_grad():
        got = plain(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.allclose(got, wanted, atol=1e-5)
    assert (wanted - expected(parts, tensors)[1]).abs().max() > 1e-3


def test_what_is_attached_leaves_other_tensors_of_the_model_alone(small):
    parts = build(Experiment(**small(adapter=BESIDE)))
    plain = parts.backbone.structure_copy()
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    tensors = noisy(parts)
    after = attach(plain, tensors, parts.model.scale).state_dict()
    assert after.keys() == before.keys() | tensors.keys()
    for name, tensor in after.items():
        assert torch.equal(tensor, tensors.get(name, before.get(name)))
