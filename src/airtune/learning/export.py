"""An adapter as a folder that others can use: plain peft or plain torch, no airtune."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from airtune.learning import pooled, standalone
from airtune.learning.adapter import TENSORS, AdaptedModel, Adapter
from airtune.learning.label_bias import LABEL_BIAS, absorbed
from airtune.learning.pooled import PooledClassifier

_BASE = '''

SOURCE = {source!r}


def base_model(source: str = SOURCE) -> PooledClassifier:
    """Return the frozen model that the adapter belongs to; load the adapter on it with peft."""
    encoder = AutoModel.from_pretrained(source, dtype={dtype!r}{cut})
    model = PooledClassifier(encoder, {classes}, {pooling!r}, {normalise}){head}
    return model.eval()
'''

_LOADER = "from safetensors.torch import load_file"
_HEAD = """
    head = load_file(Path(__file__).parent / "head.safetensors")
    model.classifier.load_state_dict(head)"""

_LOAD = '''

def load(source: str = {source!r}) -> nn.Module:
    """Return the trained model; ``source`` is where the base model is read from."""
    {imports}

    path = Path(__file__).with_name({tensors!r})
    return attach_file({base}, path, {scale}, wide={wide})
'''

_PEFT_README = """# Adapter trained with airtune

```python
from peft import PeftModel
{imports}

source = {source!r}  # where the base model is read from
model = PeftModel.from_pretrained({base}, ".").eval()
```

{note}
"""

_README = """# Adapter of kind {kind} trained with airtune

```python
from load import load  # in this folder

model = load()  # load(source) reads the base model from elsewhere
```

{note} What was trained is in `{tensors}`, tensors by name; `load.py` puts them
into that model, and needs torch, transformers and safetensors only.
"""


def write_adapter(
    model: AdaptedModel, adapter: Adapter, labels: Sequence[str], folder: Path, about: str = ""
) -> None:
    """Write an adapter folder with a README that loads it, and the names of the classes.

    ``about`` is a sentence that says whose model it is; none by default.

    It is peft's where peft has the kind; else ``load.py`` puts the tensors into the plain model.
    A sentence encoder read by its own pooling has no class in transformers, so the few lines that
    define it go along as ``base_model.py``. A label bias becomes a part of the head's.
    """
    bias = adapter.get(LABEL_BIAS)
    model.save(absorbed(adapter, model.head_bias), folder)
    module, dtype = model.backbone.module, model.backbone.dtype
    source = model.backbone.source
    if Path(source).is_dir():  # a relative path would be another one where this is loaded
        source = str(Path(source).resolve())
    layers = model.backbone.layers
    cut = "" if layers is None else f", num_hidden_layers={layers}"
    if labels:
        (folder / "labels.json").write_text(json.dumps(list(labels), indent=0), encoding="utf-8")
    if isinstance(module, PooledClassifier):
        text = inspect.getsource(pooled).replace(
            "from transformers.modeling_outputs",
            "from transformers import AutoModel\nfrom transformers.modeling_outputs",
        )
        if model.backbone.frozen_head:
            head = {n: t.clone() for n, t in module.classifier.state_dict().items()}
            if bias is not None:
                head["bias"] += bias
            save_file(head, folder / "head.safetensors")
            more = "from pathlib import Path", "import torch", _LOADER
            text = text.replace("import torch", "\n".join(more), 1)
        text += _BASE.format(
            source=source,
            dtype=dtype,
            cut=cut,
            classes=module.classifier.out_features,
            pooling=module.pooling,
            normalise=module.normalise,
            head=_HEAD if model.backbone.frozen_head else "",
        )
        (folder / "base_model.py").write_text(text, encoding="utf-8")
        imports, base = "from base_model import base_model  # in this folder", "base_model(source)"
        note = (
            f"The base is the encoder `{model.backbone.name}` with {module.pooling} pooling and a "
            "linear head; `AutoModelForSequenceClassification` reads it differently and gives "
            "other logits."
        )
    else:
        kind = type(module).__name__
        imports = f"from transformers import {kind}"
        base = f'{kind}.from_pretrained(source, dtype="{dtype}"{cut})'
        if labels:
            base = (
                f'{kind}.from_pretrained(\n    source, dtype="{dtype}"{cut}, '
                f"num_labels={len(labels)},\n    pad_token_id={module.config.pad_token_id}, "
                "ignore_mismatched_sizes=True\n)"
            )
        note = f"The base model is `{model.backbone.name}`."
    note = f"{about} {note}".lstrip()
    if source != model.backbone.name:
        note += (
            f" It was read from `{source}`, tokenizer included; copy that along with this folder."
        )
    if (window := model.config.attention_window) is not None:
        stride = model.config.attention_stride
        landmarks = "the first token" if stride is None else f"tokens 0, {stride}, {2 * stride} ..."
        note += (
            f" It was trained with sparse attention in its adapted layers, a window of {window} "
            f"tokens and {landmarks}; loaded so, it sees all tokens."
        )
    if model.config.is_peft:
        readme = _PEFT_README.format(imports=imports, base=base, source=source, note=note)
    else:
        code = _LOAD.format(
            imports=imports, base=base, source=source, tensors=TENSORS, scale=model.scale,
            wide=not model.rounds,
        )  # fmt: skip
        (folder / "load.py").write_text(inspect.getsource(standalone) + code, encoding="utf-8")
        readme = _README.format(kind=model.config.kind, note=note, tensors=TENSORS)
    (folder / "README.md").write_text(readme, encoding="utf-8")
