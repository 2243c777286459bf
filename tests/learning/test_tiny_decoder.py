"""The packaged decoder: small, quick to build, the same each time."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from airtune.learning import tiny_decoder


def test_it_is_small_deterministic_and_learns(tmp_path):
    for name in ("one", "two"):
        tiny_decoder.build(tmp_path / name, steps=30)
    models = [AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("one", "two")]
    assert sum(p.numel() for p in models[0].parameters()) < 2_000_000
    for first, second in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(first, second)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "one")
    tokens = tokenizer("Show the latency of cell 3016.", return_tensors="pt")
    assert tokenizer.decode(tokens["input_ids"][0], skip_special_tokens=True) == (
        "Show the latency of cell 3016."
    )
    with torch.no_grad():
        loss = models[0](input_ids=tokens["input_ids"], labels=tokens["input_ids"]).loss
    assert loss < 6.0  # uniform over 1,024 tokens is 6.93


def test_it_is_built_once_into_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built = []

    def build(target):
        built.append(target)
        (target / "config.json").write_text("{}")

    monkeypatch.setattr(tiny_decoder, "build", build)
    assert tiny_decoder.folder() == tiny_decoder.folder()
    assert len(built) == 1
    assert [path.name for path in (tmp_path / "airtune").iterdir()] == ["tiny-decoder-1"]
