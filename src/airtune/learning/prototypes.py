"""A frozen head made of a few labelled examples that everybody has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from airtune import keyed
from airtune.errors import UserError
from airtune.learning.backbone import Backbone
from airtune.learning.data.examples import Examples
from airtune.learning.data.sources import Table
from airtune.learning.pooled import PooledClassifier

_SCALE = 20.0  # logits are this times the cosine (DERIVED, from pilot runs)
_ROWS = 64  # of a pass


def take_shots(table: Table, per_class: int, seed: int) -> tuple[Table, pd.DataFrame]:
    """Take labelled examples out of the training rows; return what is left, and them.

    Of a class with few examples half are taken, but at least one.
    """
    if per_class == 0:
        return table, table.train.iloc[:0]
    if table.task != "classification":
        raise UserError("model.prototypes: a head of prototypes is for classification; leave it.")
    order = keyed.generator(seed, "shots").permutation(len(table.train))
    labels = table.train["_label"].to_numpy()[order]
    size = np.bincount(labels, minlength=len(table.classes))
    wanted = np.minimum(per_class, np.maximum(size // 2, 1))
    # The place of each row among those of its class.
    place = pd.Series(labels).groupby(labels).cumcount().to_numpy()
    taken = np.sort(order[place < wanted[labels]])
    left = np.setdiff1d(np.arange(len(table.train)), taken)
    rest = table.train.iloc[left].reset_index(drop=True)
    return replace(table, train=rest), table.train.iloc[taken].reset_index(drop=True)


def with_prototypes(backbone: Backbone, examples: Examples, classes: int) -> Backbone:
    """Return the model with a frozen head: each class' mean direction among labelled examples.

    ``logits = 20 cos(feature, prototype)`` where features have one norm; a class without an
    example has logits of zero.
    """
    module = backbone.module
    if not isinstance(module, PooledClassifier):
        raise UserError(
            "model.prototypes: only a sentence encoder read by its own pooling has such a head; "
            "leave it, or set model.pooling."
        )
    device = next(module.parameters()).device
    sums = torch.zeros(classes, module.classifier.in_features, device=device)
    norms = []
    for positions in examples.by_length(_ROWS):
        rows, length = examples.rows[positions], examples.padded_lengths(positions)
        batch = {k: v.to(device) for k, v in examples.corpus.batch(rows, int(length)).items()}
        with torch.inference_mode():
            features = module.features(batch["input_ids"], batch["attention_mask"])
        norms.append(features.norm(dim=1))
        sums.index_add_(0, batch["labels"], torch.nn.functional.normalize(features))
    usual = torch.cat(norms).mean()
    head = torch.nn.Linear(*reversed(sums.shape), device=device).requires_grad_(False)
    head.weight.copy_(torch.nn.functional.normalize(sums) * (_SCALE / usual))
    head.bias.zero_()
    module.classifier = head
    return replace(backbone, fresh=(), frozen_head=True)
