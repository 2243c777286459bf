"""A frozen head of prototypes: made of few examples, known to all, never sent."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from airtune.build import build, session
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.learning.export import write_adapter


def experiment(small, prototypes=2, **sections):
    values = small(**sections)
    values["model"] = {**values["model"], "prototypes": prototypes}
    return Experiment(**values)


def test_the_head_is_each_class_mean_direction_times_twenty(small, tiny_encoder):
    from transformers import AutoModel, AutoTokenizer

    parts = build(experiment(small))
    plain, few = build(Experiment(**small())), parts.model.backbone.module.classifier
    left = set(map(tuple, parts.table.train[["_text", "_label"]].to_numpy()))
    frame = plain.table.train
    shots = frame[~frame.apply(lambda row: (row["_text"], row["_label"]) in left, axis=1)]
    assert shots.groupby("_label").size().max() <= 2
    # By transformers alone: masked mean, unit length, mean of a class, unit length.
    model, tokenizer = (
        AutoModel.from_pretrained(tiny_encoder),
        AutoTokenizer.from_pretrained(tiny_encoder),
    )
    sums = np.zeros((few.out_features, few.in_features))
    for row in shots.to_dict("records"):
        with torch.no_grad():
            batch = tokenizer(row["_text"], return_tensors="pt")
            batch.pop("token_type_ids", None)
            feature = model(**batch).last_hidden_state[0].mean(0).numpy()
        sums[row["_label"]] += feature / np.linalg.norm(feature)
    wanted = 20 * sums / np.linalg.norm(sums, axis=1, keepdims=True) / np.sqrt(few.in_features)
    assert few.weight.numpy() == pytest.approx(wanted, abs=2e-5)
    assert not few.bias.any()


def test_it_neither_trains_nor_travels_and_clients_lack_its_examples(small, tmp_path):
    parts = build(experiment(small))
    assert not [name for name in parts.model.initial if "classifier" in name]
    before = parts.model.backbone.module.classifier.weight.clone()
    classes = len(parts.table.classes)
    assert len(build(Experiment(**small())).table.train) - len(parts.table.train) == 2 * classes
    list(session(parts, experiment(small), tmp_path).rounds())
    assert torch.equal(parts.model.backbone.module.classifier.weight, before)


def test_an_exported_adapter_brings_its_head_along(small, tmp_path):
    parts = build(experiment(small))
    (tmp_path / "run").mkdir()
    progress = session(parts, experiment(small), tmp_path / "run")
    list(progress.rounds())
    folder = tmp_path / "adapter"
    write_adapter(parts.model, progress.adapter, parts.table.classes, folder)
    rows = parts.evaluator._test.batch(np.arange(4))
    parts.model.slots.load([progress.adapter])
    with torch.inference_mode():
        expected = parts.model.logits(rows)
    torch.save((rows, expected), tmp_path / "expected.pt")
    script = (
        "import sys; sys.modules['airtune'] = None\n"
        "import torch\n"
        "from peft import PeftModel\n"
        "from base_model import base_model\n"
        "model = PeftModel.from_pretrained(base_model(), '.').eval()\n"
        "batch, expected = torch.load('../expected.pt')\n"
        "inputs = {k: batch[k] for k in ('input_ids', 'attention_mask')}\n"
        "print(float((model(**inputs).logits - expected).abs().max()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
    )
    assert float(done.stdout.splitlines()[-1]) < 1e-5


def test_what_cannot_have_prototypes_is_refused(small, tiny_llama):
    with pytest.raises(UserError, match="prototypes"):
        build(Experiment(**small(model={"name": tiny_llama, "prototypes": 1, "pooling": "native"})))
