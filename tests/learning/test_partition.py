"""Every partition deals every row out exactly once, in the mix that it promises."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from airtune.errors import UserError
from airtune.learning.config import ClientsConfig
from airtune.learning.data.partition import partition

FRAME = pd.DataFrame(
    {"_label": np.repeat(np.arange(10), 100), "who": [f"w{i % 7}" for i in range(1000)]}
)


def shares(seed=0, frame=FRAME, **keys):
    return partition(frame, ClientsConfig(**keys), seed)


@pytest.mark.parametrize(
    "keys",
    [
        {"partition": "iid", "count": 7},
        {"partition": "dirichlet", "count": 10, "alpha": 0.3},
        {"partition": "quantity", "count": 10, "alpha": 0.5},
        {"partition": "column", "column": "who", "count": 7},
    ],
)
def test_every_row_is_held_once_and_the_own_test_part_is_apart(keys):
    parts = shares(**keys, test_fraction=0.2)
    rows = np.concatenate([np.concatenate([share.train, share.test]) for share in parts])
    assert sorted(rows) == list(range(1000))
    for share in parts:
        total = len(share.train) + len(share.test)
        assert len(share.test) == min(max(round(0.2 * total), 1), total - 1)
    again = shares(**keys, test_fraction=0.2)
    assert all(np.array_equal(a.train, b.train) for a, b in zip(parts, again, strict=True))


def skew(parts):
    """Mean total-variation distance between a client's label mix and the whole's."""
    mixes = [np.bincount(FRAME["_label"][share.train], minlength=10) for share in parts]
    return np.mean([np.abs(mix / mix.sum() - 0.1).sum() / 2 for mix in mixes])


def test_a_small_alpha_is_more_skewed_and_a_large_one_approaches_iid():
    measured = [skew(shares(alpha=alpha)) for alpha in (0.1, 1.0, 100.0)]
    assert measured[0] > measured[1] > measured[2]
    assert measured[2] < 0.1
    assert skew(shares(partition="iid")) < 0.15  # sampling noise of 90 rows in ten classes


def test_quantity_keeps_the_mix_but_not_the_size():
    parts = shares(partition="quantity", count=5, alpha=0.5)
    sizes = [len(share.train) for share in parts]
    assert max(sizes) > 3 * min(sizes)
    big = [share for share in parts if len(share.train) > 100]
    assert skew(big) < 0.15


def test_column_takes_the_largest_groups():
    frame = pd.DataFrame({"who": ["a"] * 5 + ["b"] * 9 + ["c"] * 3})
    parts = shares(frame=frame, partition="column", column="who", count=2)
    assert [share.name for share in parts] == ["b", "a"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"count": 1001}, "1001 clients but only 1000 training examples"),
        ({"partition": "column", "column": "whom", "count": 2}, "did you mean 'who'"),
        ({"partition": "column", "column": "who", "count": 9}, "has 7 values; give at most 7"),
        ({"count": 300, "alpha": 0.01}, "leaves clients such as .* raise clients.alpha"),
    ],
)
def test_impossible_partitions_are_refused(keys, message):
    with pytest.raises(UserError, match=message):
        shares(**keys)


def test_groups_go_whole_to_clients_who_have_about_as_much():
    frame = pd.DataFrame({"topic": list("aaaaabbbbcccddef")})
    config = ClientsConfig(count=3, partition="groups", column="topic", test_fraction=0.0)
    shares = partition(frame, config, seed=0)
    owned = [set(frame["topic"][share.train]) for share in shares]
    assert sorted(topic for topics in owned for topic in topics) == list("abcdef")
    # The largest three go to a client each; then always to who has least.
    assert sorted(len(share.train) for share in shares) == [5, 5, 6]
    other = partition(frame, config, seed=1)
    assert sorted(len(share.train) for share in other) == [5, 5, 6]


def test_groups_need_as_many_values_as_clients():
    frame = pd.DataFrame({"topic": list("aabb")})
    config = ClientsConfig(count=3, partition="groups", column="topic")
    with pytest.raises(UserError, match="column 'topic' has 2 values; give at most 2"):
        partition(frame, config, seed=0)
