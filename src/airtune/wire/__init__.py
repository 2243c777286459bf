"""Payloads to bytes and back; knows nothing of models and methods."""

from airtune.wire.coded_changes import CodedChanges, Grid, coded_bits
from airtune.wire.coded_logits import MOST_ENTRIES, CodedLogits, Reference
from airtune.wire.container import WireError
from airtune.wire.dense import Dense, ValueType
from airtune.wire.entries import SparseTensors
from airtune.wire.fixed_point import FixedPoint
from airtune.wire.logits import SparseLogits, ValueBits, message_bits
from airtune.wire.masked import Masked
from airtune.wire.payload import Payload, Shapes, decode, encode
from airtune.wire.rank_slices import RankSlices
from airtune.wire.rounded import RoundedChanges

__all__ = [
    "MOST_ENTRIES",
    "CodedChanges",
    "CodedLogits",
    "Dense",
    "FixedPoint",
    "Grid",
    "Masked",
    "Payload",
    "RankSlices",
    "Reference",
    "RoundedChanges",
    "Shapes",
    "SparseLogits",
    "SparseTensors",
    "ValueBits",
    "ValueType",
    "WireError",
    "coded_bits",
    "decode",
    "encode",
    "message_bits",
]
