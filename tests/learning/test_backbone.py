"""Models are found, read as they were trained to be read, and refused with a sentence."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from airtune.build import build
from airtune.errors import UserError
from airtune.experiment import Experiment
from airtune.learning import hub
from airtune.learning.backbone import _pooling, load_backbone
from airtune.learning.config import ModelConfig
from airtune.learning.export import write_adapter

CPU = torch.device("cpu")


def test_a_sentence_encoder_is_pooled_by_the_mean_of_its_unmasked_tokens(tiny_encoder):
    from transformers import AutoModel, AutoTokenizer

    loaded = load_backbone(ModelConfig(name=tiny_encoder), "classification", 3, CPU)
    assert (loaded.pooling, loaded.fresh) == ("mean", ("classifier",))
    model = loaded.module
    torch.nn.init.normal_(model.classifier.weight)
    tokens = AutoTokenizer.from_pretrained(tiny_encoder)(
        ["show the latency", "it"], padding=True, return_tensors="pt"
    )
    tokens.pop("token_type_ids", None)
    with torch.no_grad():
        got = model(**tokens).logits
        hidden = AutoModel.from_pretrained(tiny_encoder)(**tokens).last_hidden_state
        for row in range(2):
            real = hidden[row, : int(tokens["attention_mask"][row].sum())].mean(0)
            unit = real / real.norm() * 32**0.5
            assert torch.allclose(got[row], model.classifier(unit), atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "last"])
def test_other_poolings_read_the_first_or_the_last_token(tiny_encoder, pooling):
    loaded = load_backbone(
        ModelConfig(name=tiny_encoder, pooling=pooling), "classification", 3, CPU
    )
    torch.nn.init.normal_(loaded.module.classifier.weight)
    ids = torch.tensor([[1, 5, 6, 2, 0, 0]])
    mask = (ids > 0).long()
    with torch.no_grad():
        hidden = loaded.module.backbone(input_ids=ids, attention_mask=mask).last_hidden_state[0]
        read = hidden[0 if pooling == "cls" else 3]
        expected = loaded.module.classifier(read / read.norm() * 32**0.5)
        assert torch.allclose(loaded.module(ids, mask).logits[0], expected, atol=1e-6)


def test_the_pooling_that_a_checkpoint_describes_is_used(tiny_encoder, tmp_path):
    folder = tmp_path / "cls"
    shutil.copytree(tiny_encoder, folder)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert _pooling("auto", str(folder)) == ("cls", True)
    (folder / "modules.json").unlink()
    assert _pooling("auto", str(folder)) == ("native", False)


def test_a_native_head_is_fresh_and_trains_and_exports_plainly(small, tiny_encoder, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    parts = build(Experiment(**small(model={"name": tiny_encoder, "pooling": "native"})))
    assert "classifier" in parts.backbone.fresh
    assert {"classifier.weight", "classifier.bias"} <= set(parts.model.initial)
    adapter = {n: t + 0.01 for n, t in parts.model.initial.items()}
    parts.model.save(adapter, tmp_path)
    base = AutoModelForSequenceClassification.from_pretrained(tiny_encoder, num_labels=8)
    plain = PeftModel.from_pretrained(base, tmp_path).eval()
    batch = parts.evaluator._test.batch(torch.arange(3).numpy())
    parts.model.slots.load([adapter])
    with torch.no_grad():
        got = plain(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        assert torch.allclose(got, parts.model.logits(batch), atol=1e-5)


def test_a_causal_adapter_loads_on_the_plain_model(small, tiny_llama, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    parts = build(Experiment(**small("causal")))
    adapter = {n: t + 0.02 for n, t in parts.model.initial.items()}
    parts.model.save(adapter, tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, tmp_path).eval()
    batch = parts.evaluator._test.batch(torch.arange(3).numpy())
    parts.model.slots.load([adapter])
    with torch.no_grad():
        got = plain(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        assert torch.allclose(got, parts.model.logits(batch), atol=1e-5)


def test_parameters_that_count_for_arithmetic_leave_the_tables_out(tiny_encoder, tiny_llama):
    encoder = load_backbone(ModelConfig(name=tiny_encoder), "classification", 3, CPU)
    tables = (400 + 64 + 2) * 32
    assert encoder.parameters - encoder.active_parameters == tables
    decoder = load_backbone(ModelConfig(name=tiny_llama), "causal", None, CPU)
    assert decoder.parameters - decoder.active_parameters == 400 * 32  # untied: one table


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"adapter": {"rank": 33}}, r"adapter.rank: 33 is above the width 32 of '.*query'"),
        ({"adapter": {"targets": ["qeury"]}}, r"adapter.targets: .*linear modules: .*query"),
        ({"model": {"name": "./nowhere"}}, r"model.name: there is no folder './nowhere'"),
    ],
)
def test_models_and_adapters_that_do_not_fit(small, sections, sentence):
    with pytest.raises(UserError, match=sentence):
        build(Experiment(**small(**sections)))


def test_a_folder_without_a_model_and_a_hub_name_without_a_hub(small, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"cannot be loaded|does not fit"):
        build(Experiment(**small(model={"name": str(tmp_path)})))
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        UserError, match=r"model\.name: .* no hub can be reached; give a local path"
    ):
        build(Experiment(**small(model={"name": "someone/nothing"})))


def test_the_hub_is_asked_once_and_answers_fast(monkeypatch):
    from huggingface_hub import constants

    for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    hub.reachable.cache_clear()
    assert hub.reachable() is False
    hub.reachable.cache_clear()


def test_an_encoder_is_no_causal_model(small, tiny_encoder):
    with pytest.raises(UserError, match="it is an encoder; name a causal language model"):
        build(Experiment(**small("causal", model={"name": tiny_encoder})))


def test_texts_are_cut_to_the_positions_that_a_model_has(small, tiny_encoder, tmp_path):
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    parts = build(Experiment(**small(model={"max_tokens": 5000})))
    assert parts.backbone.longest == 64
    AutoTokenizer.from_pretrained(tiny_encoder, model_max_length=5000).save_pretrained(tmp_path)
    config = RobertaConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40, pad_token_id=1,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path)
    roberta = load_backbone(
        ModelConfig(name=str(tmp_path), pooling="mean"), "classification", 3, CPU
    )
    assert roberta.longest == 38  # positions start at 2
    ids = torch.full((1, 38), 5)
    assert roberta.module(ids, torch.ones_like(ids)).logits.shape == (1, 3)


def test_a_decoder_classifies_and_its_readme_loads_it(small, tiny_llama, tmp_path):
    """GPT-2 too: its Conv1D layers take LoRA, and it has no padding token of its own."""
    from peft import PeftModel
    from transformers import AutoTokenizer, GPT2Config, GPT2Model

    from airtune.learning.export import write_adapter

    source = tmp_path / "gpt2"
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(source)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 400}
    GPT2Model(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)).save_pretrained(source)
    parts = build(Experiment(**small(model={"name": str(source)})))
    assert parts.backbone.fresh == ("score",)
    assert parts.model.slots.stacked
    adapter = {n: t + 0.02 for n, t in parts.model.initial.items()}
    folder = tmp_path / "adapter"
    write_adapter(parts.model, adapter, parts.table.classes, folder)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.S)
    namespace = {}
    exec(code.replace('"."', repr(str(folder))), namespace)
    assert isinstance(namespace["model"], PeftModel)
    batch = parts.evaluator._test.batch(torch.arange(3).numpy())
    parts.model.slots.load([adapter])
    with torch.no_grad():
        got = namespace["model"](batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        assert torch.allclose(got, parts.model.logits(batch), atol=1e-5)


def test_a_model_of_fewer_layers_is_the_bottom_of_the_whole_one(small, tiny_encoder, tmp_path):
    whole = load_backbone(ModelConfig(name=tiny_encoder), "classification", 3, CPU)
    cut = load_backbone(ModelConfig(name=tiny_encoder, layers=1), "classification", 3, CPU)
    ids = torch.arange(4, 12)[None]
    with torch.no_grad():
        hidden = whole.module.backbone(ids, output_hidden_states=True).hidden_states
        assert torch.equal(cut.module.backbone(ids).last_hidden_state, hidden[1])
    assert cut.active_parameters < whole.active_parameters
    # What is exported names the layers, and loads as they are.
    parts = build(Experiment(**small(model={"name": tiny_encoder, "layers": 1})))
    write_adapter(parts.model, parts.model.initial, parts.table.classes, tmp_path)
    assert "num_hidden_layers=1" in (tmp_path / "base_model.py").read_text()
    with pytest.raises(UserError, match=r"model.layers: 3 asked for, but .* has 2"):
        load_backbone(ModelConfig(name=tiny_encoder, layers=3), "classification", 3, CPU)
