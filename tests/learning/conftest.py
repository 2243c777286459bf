"""Random models of many kinds, of two layers and width 32."""

from __future__ import annotations

import pytest
import torch

_OPTIONS = {
    "Albert": {"embedding_size": 16},
    "Llama": {"num_key_value_heads": 1},
    "Mixtral": {"num_key_value_heads": 1, "num_local_experts": 2},
    "ModernBert": {"pad_token_id": 0},
}


@pytest.fixture
def checkpoint(tiny_encoder, tmp_path):
    """Function that saves a random model with the tests' tokenizer and returns its folder."""

    def save(kind, causal=False, **options):
        import transformers

        sizes = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2}
        sizes |= {"num_attention_heads": 2, "intermediate_size": 64, **_OPTIONS.get(kind, {})}
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")
        made = config(max_position_embeddings=64, **sizes, **options)
        name = f"{kind}LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
        model = getattr(transformers, name if causal else f"{kind}Model")(made)
        model.save_pretrained(tmp_path)
        transformers.AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(tmp_path)
        return str(tmp_path)

    return save
