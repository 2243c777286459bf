"""Projections of several senders, in whatever basis they come."""

from __future__ import annotations

import numpy as np
import torch

from airtune.learning.projections import Projections, Taps, rotation


def test_projections_are_means_over_those_who_sent():
    rng = np.random.default_rng(0)
    rows = [[0, 3], [3, 1, 4], [3]]
    sent = [rng.standard_normal((len(r), 2, 4)).astype(np.float32) for r in rows]
    parts = [(torch.tensor(r), torch.from_numpy(s)) for r, s in zip(rows, sent, strict=True)]
    together = Projections(Taps(), (6, 2, 4)).combine(parts, None).numpy()
    for text in range(6):
        each = [s[r.index(text)] for r, s in zip(rows, sent, strict=True) if text in r]
        if each:
            np.testing.assert_allclose(together[text], np.mean(each, axis=0), atol=1e-6)
        else:
            assert np.isnan(together[text]).all()


def orthogonal(rng, taps, rank):
    return torch.from_numpy(np.linalg.qr(rng.standard_normal((taps, rank, rank)))[0]).float()


def test_a_rotation_is_found_again_and_texts_without_projections_do_not_count():
    rng = np.random.default_rng(1)
    given = torch.from_numpy(rng.standard_normal((30, 3, 4))).float()
    turn = orthogonal(rng, 3, 4)
    own = torch.einsum("ntr,trs->nts", given, turn)
    assert torch.allclose(rotation(given, own), turn, atol=1e-5)
    gaps, holes = given.clone(), own.clone()
    gaps[3], holes[5, 1], gaps[7, 2, 0] = torch.nan, torch.nan, torch.nan
    holes[3], gaps[5], holes[7] = 100.0, -100.0, 50.0
    assert torch.allclose(rotation(gaps, holes), turn, atol=1e-5)


def test_no_other_rotation_brings_projections_nearer():
    rng = np.random.default_rng(2)
    given, own = (torch.from_numpy(rng.standard_normal((20, 2, 4))).float() for _ in range(2))
    found = rotation(given, own)
    for tap in range(2):
        square = found[tap].double().numpy()
        np.testing.assert_allclose(square @ square.T, np.eye(4), atol=1e-6)
    near = distances(given, own, found)
    for _ in range(200):
        assert (near <= distances(given, own, orthogonal(rng, 2, 4)) + 1e-6).all()
        # Also none close by: a small turn of what was found.
        skew = rng.standard_normal((2, 4, 4)) * 0.05
        small = torch.linalg.matrix_exp(torch.from_numpy(skew - skew.swapaxes(1, 2))).float()
        assert (near <= distances(given, own, found @ small) + 1e-5).all()


def distances(given, own, turn):
    gap = torch.einsum("ntr,trs->nts", given, turn) - own
    return gap.square().sum((0, 2)).sqrt().numpy()


def test_without_a_common_text_the_rotation_is_still_orthogonal():
    given, own = torch.randn(4, 2, 3), torch.full((4, 2, 3), torch.nan)
    turn = rotation(given, own)
    assert torch.allclose(turn @ turn.mT, torch.eye(3).expand(2, 3, 3), atol=1e-6)


def test_projections_in_other_bases_are_turned_onto_the_reference_or_the_first_senders():
    rng = np.random.default_rng(3)
    own = torch.from_numpy(rng.standard_normal((30, 2, 4))).float()
    turns = [orthogonal(rng, 2, 4) for _ in range(3)]
    parts = [(None, torch.einsum("ntr,trs->nts", own, turn)) for turn in turns]
    projections = Projections(Taps(), (30, 2, 4), "procrustes")
    assert torch.allclose(projections.combine(parts, own), own, atol=1e-5)
    assert torch.allclose(projections.combine(parts, None), parts[0][1], atol=1e-5)
    assert not torch.allclose(Projections(Taps(), (30, 2, 4)).combine(parts, own), own, atol=0.1)
