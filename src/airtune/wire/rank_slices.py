"""Some rank-one components of an adapter's matrices: the slices of A and B that belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from airtune.wire.bits import pack, unpack
from airtune.wire.container import Scalar, WireError
from airtune.wire.logits import ValueBits
from airtune.wire.payload import Shapes, encode, register

_FLOATS = {16: torch.float16, 32: torch.float32}
_WHOLE = "whole."
_SCALES = "s"  # and the bits of a value
SLICES = "slices."  # how a matrix is named among known shapes


@register
@dataclass(frozen=True)
class RankSlices:
    """Components of several matrices, and whole tensors beside them.

    ``kept`` [components] says which components are there, of all matrices end to end; ``slices``
    are those of each matrix, [kept, width], a component's parts of the factors end to end.
    ``scores`` [pieces] tell the scheduler what each piece of a message weighs; ``tensors`` are
    those that are no components, always whole.

    Known shapes name a matrix as "slices.NAME": (rank, parts ...), whose widths add up to a
    slice's, and the scores. On the wire: a bitmap of what is kept; values with 16 or 32 bits, or
    with 2 to 8 and a scale for every part of a slice (symmetric around zero); scores with 16.
    """

    kept: Tensor
    slices: Mapping[str, Tensor]
    parts: Mapping[str, tuple[int, ...]]
    value_bits: ValueBits = 32
    scores: Tensor | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    kind: ClassVar[int] = 4

    def to_arrays(self) -> tuple[Mapping[str, Scalar], Mapping[str, Tensor]]:
        """Return bitmap, values, scales, scores and whole tensors."""
        arrays = {"k": pack(self.kept.numpy(), 1)}
        flat = torch.cat([torch.zeros(0), *(each.reshape(-1) for each in self.slices.values())])
        if self.value_bits in _FLOATS:
            arrays["v"] = flat.to(_FLOATS[self.value_bits])
        else:
            largest = _largest_level(self.value_bits)
            steps = [steps_of(v, self.parts[name], largest) for name, v in self.slices.items()]
            scaled = [
                levels(v, step, self.parts[name], largest).reshape(-1)
                for (name, v), step in zip(self.slices.items(), steps, strict=True)
            ]
            codes = torch.cat([torch.zeros(0), *scaled]).numpy().astype(np.int64) + largest
            arrays["v"] = pack(codes, self.value_bits)
            scales = torch.cat([torch.zeros(0), *(step.reshape(-1) for step in steps)])
            arrays[_SCALES + str(self.value_bits)] = scales
        dtype = _FLOATS[max(16, self.value_bits)]  # whole tensors have 16 where values have fewer
        return {}, arrays | whole_arrays(self.scores, self.tensors, dtype)

    @classmethod
    def from_arrays(
        cls, meta: Mapping[str, Scalar], arrays: Mapping[str, Tensor], shapes: Shapes
    ) -> Self:
        """Accept components of the matrices, and tensors, that ``shapes`` names."""
        del meta
        known = {n.removeprefix(SLICES): s for n, s in shapes.items() if n.startswith(SLICES)}
        total = sum(shape[0] for shape in known.values())
        if not known or "k" not in arrays:
            raise WireError("rank slices are not part of what this method sends.")
        kept = torch.from_numpy(unpack(arrays["k"], total, 1).astype(np.bool_))
        parts = {name: tuple(shape[1:]) for name, shape in known.items()}
        counts = [int(each.sum()) for each in kept.split([shape[0] for shape in known.values()])]
        widths = [sum(parts[name]) for name in known]
        flat, bits = _read_values(arrays, counts, list(parts.values()))
        sizes = [count * width for count, width in zip(counts, widths, strict=True)]
        slices = {
            name: piece.view(count, width)
            for name, piece, count, width in zip(
                known, flat.split(sizes), counts, widths, strict=True
            )
        }
        whole, _ = read_whole(arrays, shapes)
        return cls(kept, slices, parts, bits, read_scores(arrays, shapes), whole)

    def numbers(self) -> Iterable[Tensor]:
        """Return what has to be finite."""
        yield from self.slices.values()
        yield from self.tensors.values()
        if self.scores is not None:
            yield self.scores


def slice_bits(parts: tuple[int, ...], value_bits: int) -> int:
    """Return the bits of one slice; below 8 bits a value the message is rounded up to bytes."""
    scales = 0 if value_bits in _FLOATS else 32 * len(parts)
    return sum(parts) * value_bits + scales


def empty_bits(shapes: Shapes, value_bits: ValueBits, whole: Mapping[str, Tensor]) -> int:
    """Return the bits of a message without any slice, with room for rounding up to a byte."""
    known = {n.removeprefix(SLICES): s for n, s in shapes.items() if n.startswith(SLICES)}
    parts = {name: tuple(shape[1:]) for name, shape in known.items()}
    total = sum(shape[0] for shape in known.values())
    message = RankSlices(
        torch.zeros(total, dtype=torch.bool),
        {name: torch.zeros(0, sum(widths)) for name, widths in parts.items()},
        parts,
        value_bits,
        torch.zeros(shapes["scores"]) if "scores" in shapes else None,
        whole,
    )
    return 8 * len(encode(message)) + (0 if value_bits % 8 == 0 else 7)


def whole_arrays(
    scores: Tensor | None, tensors: Mapping[str, Tensor], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return scores, and whole tensors as ``dtype``, as arrays of a message."""
    arrays = {} if scores is None else {"w": scores.to(torch.float16)}
    return arrays | {_WHOLE + name: tensor.to(dtype) for name, tensor in tensors.items()}


def read_whole(
    arrays: Mapping[str, Tensor], shapes: Shapes
) -> tuple[dict[str, Tensor], torch.dtype]:
    """Return those of the tensors in ``shapes`` that a message has whole, and their type there."""
    whole, dtype = {}, torch.float32
    for name, array in arrays.items():
        if not name.startswith(_WHOLE):
            continue
        plain = name.removeprefix(_WHOLE)
        is_tensor = plain in shapes and plain != "scores" and not plain.startswith(SLICES)
        if not is_tensor or tuple(array.shape) != tuple(shapes[plain]):
            raise WireError(f"tensor '{plain}' is not part of the shared adapter as it is.")
        if array.dtype not in _FLOATS.values():
            raise WireError(f"tensor '{plain}' is not of a floating-point type.")
        whole[plain], dtype = array.to(torch.float32), array.dtype
    return whole, dtype


def read_scores(arrays: Mapping[str, Tensor], shapes: Shapes) -> Tensor | None:
    """Return a message's scores; raise WireError for others than were asked for."""
    scores = arrays.get("w")
    if scores is None:
        return None
    if scores.dtype != torch.float16 or scores.shape != shapes.get("scores"):
        raise WireError("the scores are not the numbers that this method sends.")
    scores = scores.to(torch.float32)
    if bool((scores < 0).any()):
        raise WireError("a score is negative.")
    return scores


def _largest_level(bits: int) -> int:
    return int(2 ** (bits - 1) - 1)


def steps_of(values: Tensor, parts: tuple[int, ...], largest: int) -> Tensor:
    """Return the step of each part of each slice, [kept, parts]: its largest value has a level."""
    pieces = values.split(list(parts), dim=1)
    return torch.stack([piece.abs().amax(1) for piece in pieces], dim=1) / largest


def levels(values: Tensor, steps: Tensor, parts: tuple[int, ...], largest: int) -> Tensor:
    """Return values as whole numbers of steps, nearest, at most ``largest`` from zero."""
    step = _spread(steps, parts)
    return torch.where(step > 0, values / step, 0.0).round().clamp(-largest, largest)


def rounded_stochastically(
    values: Tensor, parts: tuple[int, ...], bits: int, draw: torch.Generator
) -> Tensor:
    """Return values on the grid of ``bits``, up or down at random so that the mean is unbiased."""
    largest = _largest_level(bits)
    step = _spread(steps_of(values, parts, largest), parts)
    exact = torch.where(step > 0, values / step, 0.0)
    chance = torch.rand(values.shape, generator=draw)
    # The largest of a part stays on its level, so that reading finds the same steps again.
    on_edge = exact.abs() > largest - 1e-4
    down = torch.where(on_edge, exact.round(), (exact + chance).floor())
    return down.clamp(-largest, largest) * step


def _spread(steps: Tensor, parts: tuple[int, ...]) -> Tensor:
    """Return steps [kept, parts] as [kept, width]."""
    return steps.repeat_interleave(torch.tensor(parts), dim=1)


def _read_values(
    arrays: Mapping[str, Tensor], counts: list[int], parts: list[tuple[int, ...]]
) -> tuple[Tensor, ValueBits]:
    """Return all values end to end, and with how many bits they travelled."""
    widths = [sum(each) for each in parts]
    total = sum(count * width for count, width in zip(counts, widths, strict=True))
    values = arrays.get("v")
    if values is None:
        raise WireError("the message has no values.")
    scaled = [bits for bits in (2, 3, 4, 5, 6, 8) if _SCALES + str(bits) in arrays]
    if not scaled:
        known = {dtype: bits for bits, dtype in _FLOATS.items()}
        if values.dtype not in known or values.shape != (total,):
            raise WireError(f"the message does not hold {total} values.")
        return values.to(torch.float32), known[values.dtype]  # type: ignore[return-value]
    bits = scaled[0]
    steps = arrays[_SCALES + str(bits)]
    scales = [count * len(each) for count, each in zip(counts, parts, strict=True)]
    if steps.dtype != torch.float32 or steps.shape != (sum(scales),):
        raise WireError(f"the message does not hold {sum(scales)} scales.")
    if not bool((torch.isfinite(steps) & (steps >= 0)).all()):
        raise WireError("a scale is not finite, or is negative.")
    codes = torch.from_numpy(unpack(values, total, bits) - _largest_level(bits)).float()
    spread = [
        _spread(piece.view(count, len(each)), each).reshape(-1)
        for piece, count, each in zip(steps.split(scales), counts, parts, strict=True)
    ]
    return codes * torch.cat([torch.zeros(0), *spread]), bits  # type: ignore[return-value]
