"""Public texts are laid out once for each model's tokens, and taught once to all who learn."""

import torch

from airtune.build import build
from airtune.experiment import Experiment
from airtune.learning.knowledge import Knowledge
from airtune.learning.public import PublicTexts


def test_texts_are_taught_once_for_all_who_have_the_same_tokens(small):
    texts = build(Experiment(**small(method="fedmd"))).method.setup.public
    public = PublicTexts(texts)
    assert public.positions_of(texts) is public.positions
    shape = len(public.positions), 2
    known = Knowledge(torch.rand(shape), torch.zeros(shape, dtype=torch.int64), 8)
    taught = public.taught(known, texts)
    assert torch.equal(taught.corpus.columns["teacher_values"], known.values)
    assert public.taught(Knowledge(known.values, known.index, 8), texts) is taught
    news = Knowledge(known.values + 1, known.index, 8)
    assert torch.equal(public.taught(news, texts).corpus.columns["teacher_values"], news.values)
