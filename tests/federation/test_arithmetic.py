"""What a device is charged for a token, against what torch counts in passes of the same model."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from airtune.build import build, session
from airtune.experiment import Experiment
from airtune.federation import ledger
from airtune.methods import Work
from airtune.planned_seconds import passes

# A Llama of width 32 with one key head: parameters of a layer, and of final norm and output.
LAYER, REST = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32, 400 * 32 + 32
LAYERS = 5
WHOLE = LAYERS * LAYER + REST


@pytest.fixture(scope="module")
def tall(tiny_llama, tmp_path_factory):
    """The tiny Llama with five layers."""
    folder = tmp_path_factory.mktemp("tall")
    shutil.copytree(tiny_llama, folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    config = LlamaConfig.from_pretrained(tiny_llama, num_hidden_layers=LAYERS)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def counted(model, tokens):
    """Floating-point operations of a token, forward and with the way back, by torch's count."""
    inputs = torch.ones(tokens // 4, 4, dtype=torch.long)  # short: attention's products are few
    found = []
    for backward in (False, True):
        with FlopCounterMode(display=False) as counter:
            logits = model.logits({"input_ids": inputs, "attention_mask": inputs})
            if backward:
                logits.sum().backward()
        found.append(counter.get_total_flops() / tokens)
    return found


@pytest.mark.parametrize(
    ("adapter", "reached", "trained"),
    [
        ({"kind": "lora", "rank": 1}, LAYERS, 0),
        ({"kind": "lora", "rank": 1, "top_layers": 2}, 2, 0),
        # Behind attention, so that the first layer's is not reached: up to 2 % too much.
        ({"kind": "bottleneck", "bottleneck": 1, "top_layers": 2}, 2, 0),
        ({"kind": "blocks", "top_layers": 2}, 2, 2),
        ({"kind": "blocks", "top_layers": 5}, LAYERS, LAYERS),
    ],
)
def test_the_way_back_is_charged_to_the_first_adapted_layer(small, tall, adapter, reached, trained):
    values = small("causal", model={"name": tall}, adapter=adapter, cell={"backward": "adapted"})
    parts = build(Experiment(**values))
    costs = passes(parts.model, parts.cell.config)
    assert costs.forward == WHOLE == parts.backbone.active_parameters
    assert costs.backward == reached * LAYER + REST
    assert costs.weights == trained * LAYER
    parts.model.slots.load([parts.model.initial])
    forward, both = counted(parts.model, 64)
    # Left out are attention's own products and what adapters of width 1 add to maps of 32.
    assert costs.inference(1) == pytest.approx(forward, rel=0.04)
    assert costs.training(1) == pytest.approx(both, rel=0.04)
    usual = passes(parts.model, parts.cell.config.model_copy(update={"backward": "all"}))
    assert usual.training(1) == 4 * WHOLE


def test_a_round_charges_and_plans_what_the_cell_says(small, tall, tmp_path):
    charged, planned = [], []
    for backward in ("all", "adapted"):
        adapter, cell = {"kind": "blocks", "top_layers": 1}, {"backward": backward}
        sections = {"model": {"name": tall}, "adapter": adapter, "cell": cell}
        experiment = Experiment(**small("causal", train={"rounds": 1}, **sections))
        parts = build(experiment)
        list(session(parts, experiment, tmp_path / backward).rounds())
        rows = ledger.read(tmp_path / backward / "ledger.jsonl")
        charged.append([r["compute_seconds"] for r in rows if r["row"] == "upload"])
        planned.append(parts.method.setup.compute_seconds([0, 1], Work(2)))
    ratio = (2 * WHOLE + 2 * (LAYER + REST) + 2 * LAYER) / (4 * WHOLE)
    assert charged[1] == pytest.approx([ratio * each for each in charged[0]])
    assert planned[1].tolist() == pytest.approx([ratio * each for each in planned[0]])
