"""Prompts of the built-in pair of objectives: beginnings of stories that name a topic (ours)."""

from __future__ import annotations

import pandas as pd

from airtune.learning.alignment.topics import prompts


def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return training and held-out prompts, 112 and 28, with columns prompt, topic, group."""
    rows = pd.DataFrame(
        {
            "prompt": prompt.text,
            "topic": prompt.topic,
            "group": "risky" if prompt.risky else "calm",
            "held_out": prompt.held_out,
        }
        for prompt in prompts()
    )
    train, test = (
        rows[rows["held_out"] == held].drop(columns="held_out").reset_index(drop=True)
        for held in (False, True)
    )
    return train, test
