"""What the links of a round take: seconds against clients, bytes against clients and rounds."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from airtune.radio.cell import Cell
from airtune.radio.config import CellConfig
from airtune.radio.presets import PRESETS

SIZES = (1_000, 10_000, 100_000)
TIMED_ROUNDS, BUILDS = 21, 5
LENGTHS = (1, 10, 100)  # rounds, for memory
PLAIN = "as it is"
WALKS = {"mobility": "random-waypoint"}
# In every preset whose links are drawn.
OPTIONS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "maps of shadowing": {"shadowing_map": True},
    "walking, 3 km/h": {**WALKS, "speed_kmh": 3.0},
    "driving, 500 km/h": {**WALKS, "speed_kmh": 500.0},
}
# In one preset each: other ways through the code, and the longest.
OTHERS: dict[tuple[str, str], dict[str, Any]] = {
    ("urban-micro", "fading remembered"): {"speed_kmh": 0.3, "round_interval_s": 0.1},
    ("urban-micro", "Nakagami fading"): {"fading": "nakagami"},
    ("urban-micro", "80 % indoors"): {"indoor_fraction": 0.8},
    ("urban-micro", "stated SNR"): {"snr_db": (0.0, 20.0)},
    ("urban-micro", "driving, 50 km/h"): {**WALKS, "speed_kmh": 50.0},
    # Twenty crossings between rounds: with one more, rounds are drawn without stepping.
    ("indoor-office", "20 crossings a round"): {**WALKS, "speed_kmh": 90.0},
}
REMEMBERED = ("urban-micro", "rural-macro")  # presets whose memory is measured, with all options
Row = dict[str, Any]


def cells() -> dict[tuple[str, str], CellConfig]:
    """Return the cells that are timed, by preset and option."""
    found = {
        (preset, option): CellConfig(preset=preset, **values)
        for preset in PRESETS
        for option, values in OPTIONS.items()
        if preset != "ideal" or option == PLAIN
    }
    return found | {key: CellConfig(preset=key[0], **values) for key, values in OTHERS.items()}


def timed(config: CellConfig, clients: int, rounds: int = TIMED_ROUNDS) -> Row:
    """Return milliseconds of building a cell, and of the links of a round: medians and a range."""
    built = [_milliseconds(partial(Cell, config, clients, seed=0)) for _ in range(BUILDS)]
    cell = Cell(config, clients, seed=0)
    cell.links(0)  # maps of places where nobody was before are made in it
    taken = [_milliseconds(partial(cell.links, round)) for round in range(1, rounds + 1)]
    wall = [each for each, _ in taken]
    return {
        "clients": clients,
        "build_ms": _digits(median(each for each, _ in built)),
        "build_processor_ms": _digits(median(each for _, each in built)),
        "ms": _digits(median(wall)),
        "range_ms": [_digits(min(wall)), _digits(max(wall))],
        "processor_ms": _digits(median(each for _, each in taken)),
    }


def _milliseconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor milliseconds."""
    started, before = time.perf_counter(), time.process_time()
    work()
    processor = time.process_time() - before
    return 1e3 * (time.perf_counter() - started), 1e3 * processor


def remembered(config: CellConfig, clients: int, rounds: int) -> Row:
    """Return the bytes that a cell holds after ``rounds`` rounds, and the most on the way."""
    Cell(config, 10, seed=0).links(1)  # what is kept between cells
    gc.collect()
    tracemalloc.start()
    cell = Cell(config, clients, seed=0)
    for round in range(1, rounds + 1):
        cell.links(round)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"clients": clients, "rounds": rounds, "held_bytes": held, "peak_bytes": peak}


def growth(few: Row, middle: Row, many: Row, key: str) -> float:
    """Return bytes per client from ``middle`` to ``many`` over those from ``few`` to ``middle``."""
    first = (middle[key] - few[key]) / (middle["clients"] - few["clients"])
    second = (many[key] - middle[key]) / (many["clients"] - middle["clients"])
    return float(second / first)


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
