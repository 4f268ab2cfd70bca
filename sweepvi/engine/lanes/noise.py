"""The noise of a fit's steps: every number a function of the fit's seed, the step, and the number's place in the step.

So a fit's draws do not depend on its lane, on the lanes beside it, or on how many steps are filled at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from sweepvi.engine.lanes.philox import WORD, Words, philox, philox_in_place
from sweepvi.engine.lanes.tracing import is_traced

Kind: TypeAlias = Literal["normal", "uniform"]


@dataclass(frozen=True)
class Draw:
    """One call for random numbers in a step: standard normal, or uniform over the open interval (0, 1)."""

    kind: Kind
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """How many numbers it takes."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Sort:
    """Draws that are filled together."""

    kind: Kind
    dtype: torch.dtype

    @property
    def per_block(self) -> int:
        """Numbers that four random words give."""
        return 2 if self.dtype == torch.float64 else 4


class NoiseLayout:
    """Where the numbers of each draw of a step lie, in one row for each sort of draws.

    Args:
        draws: of a step, in the order in which the program makes them.

    Raises:
        TypeError: a draw is of another type than float32 and float64. (Uniforms of 16 bits would be 0 or 1.)

    """

    def __init__(self, draws: Sequence[Draw]) -> None:
        self.draws = tuple(draws)
        self.places: list[tuple[Sort, slice]] = []
        """Of each draw: its sort, and its part of the row."""
        self.taken: dict[Sort, int] = {}
        """How many numbers of a row draws take; it is longer by what fills its last block."""
        for draw in self.draws:
            sort = Sort(draw.kind, draw.dtype)
            if sort not in _MAKERS:
                raise TypeError(f"draws of {draw.dtype} are not known; of float32 and float64 they are")
            start = self.taken.get(sort, 0)
            self.taken[sort] = start + draw.size
            self.places.append((sort, slice(start, start + draw.size)))

    def filled(self, seeds: Tensor, steps: Tensor, stream: int = 0) -> dict[Sort, Tensor]:
        """The noise of several steps of several fits.

        Where it is traced, it is a pure function of its tensors. Eagerly it is the same numbers,
        bit for bit, block by block in memory that stays in the processor's cache. Compiled, uniforms are the same, and
        normals differ by the rounding of the compiler's logarithm, sine and cosine.

        Args:
            seeds: int64, shape [K], at least 0.
            steps: int64, from 0 to 2³² − 1: shape [T], the same for all fits, or [T, K].
            stream: 0 to 2³² − 1; numbers of different streams have nothing to do with each other.

        Returns:
            By sort, shape [T, K, numbers]; see ``places``.

        """
        fill = _traceable if is_traced() else _in_blocks
        return {sort: fill(sort, -(-size // sort.per_block), seeds, steps, stream) for sort, size in self.taken.items()}

    def of_lane(self, noise: Mapping[Sort, Tensor]) -> list[Tensor]:
        """The draws in their shapes: from the rows of one lane at one step, shape [numbers] each."""
        return [
            noise[sort][place].view(draw.shape) for draw, (sort, place) in zip(self.draws, self.places, strict=True)
        ]


_BLOCKS_AT_ONCE = {"cpu": 1 << 14}
"""By type of device; on others, as many as keep memory small."""
_LONG = 256


def _traceable(sort: Sort, blocks: int, seeds: Tensor, steps: Tensor, stream: int) -> Tensor:
    """Shape [T, K, numbers]."""
    maker = _MAKERS[sort]
    block = torch.arange(blocks, device=seeds.device)
    counter = (block, torch.full_like(block, maker.code), _by_lane(steps), torch.full_like(block, stream))
    words = philox(counter, ((seeds & WORD)[:, None], (seeds >> 32 & WORD)[:, None]))
    return torch.stack(maker.pure(words), -1).flatten(-2)


def _in_blocks(sort: Sort, blocks: int, seeds: Tensor, steps: Tensor, stream: int) -> Tensor:
    """Shape [T, K, numbers]."""
    maker = _MAKERS[sort]
    at_once = _BLOCKS_AT_ONCE.get(seeds.device.type, 1 << 22)
    lanes = len(seeds)
    found = torch.empty(len(steps), lanes, blocks * sort.per_block, dtype=sort.dtype, device=seeds.device)
    flat = found.view(-1, sort.per_block)
    rows = [each.expand(len(steps), lanes).flatten() for each in (_by_lane(steps)[..., 0], seeds, seeds >> 32)]
    height, width = max(1, at_once // max(1, blocks)), max(1, min(blocks, at_once))
    for top in range(0, len(rows[0]), height):
        step, *seed = (each[top : top + height, None] for each in rows)
        for left in range(0, blocks, width):
            block = torch.arange(left, min(left + width, blocks), device=seeds.device)
            shape = (2, len(step), len(block))
            multiplied, kept = (torch.empty(shape, dtype=torch.int64, device=seeds.device) for _ in range(2))
            multiplied[0], multiplied[1], kept[0], kept[1] = block, step, maker.code, stream
            # Broadcasting is cheap over long rows only.
            key = torch.stack(seed).expand(shape if len(block) < _LONG else (2, len(step), 1)).contiguous()
            words = philox_in_place(multiplied, kept, key)
            start = top * blocks + left
            maker.into(flat[start : start + words[0].numel()], [word.view(-1) for word in words])
    return found


def _by_lane(steps: Tensor) -> Tensor:
    """Shape [T, K or 1, 1]."""
    return steps[:, None, None] if steps.dim() == 1 else steps[:, :, None]


def _uniforms32(words: Words) -> list[Tensor]:
    # 23 bits: with more, the largest would round to 1.
    return [((word >> 9).float() + 0.5) * 2.0**-23 for word in words]


def _uniforms32_into(out: Tensor, words: list[Tensor]) -> None:
    for place, word in enumerate(words):
        out[:, place] = word >> 9
    out.add_(0.5).mul_(2.0**-23)


def _uniforms64(words: Words) -> list[Tensor]:
    # 52 bits, as above.
    return [
        ((high >> 6).double() * 2.0**26 + (low >> 6).double() + 0.5) * 2.0**-52 for high, low in (words[:2], words[2:])
    ]


def _uniforms64_into(out: Tensor, words: list[Tensor]) -> None:
    for place, (high, low) in enumerate((words[:2], words[2:])):
        # Exact as integers, as the sum of two doubles is above.
        out[:, place] = (high >> 6).mul_(1 << 26).add_(low >> 6)
    out.add_(0.5).mul_(2.0**-52)


def _normals32(words: Words) -> list[Tensor]:
    # The radius needs all 32 bits, or tails would end at 5.6 standard deviations; here they do at 6.8.
    return [
        *_box_muller((words[0].float() + 0.5) * 2.0**-32, words[1].float() * 2.0**-32),
        *_box_muller((words[2].float() + 0.5) * 2.0**-32, words[3].float() * 2.0**-32),
    ]


def _normals32_into(out: Tensor, words: list[Tensor]) -> None:
    radius, angle = out.new_empty(2, len(out)), out.new_empty(2, len(out))
    for pair in range(2):
        radius[pair], angle[pair] = words[2 * pair], words[2 * pair + 1]
    _box_muller_into(out.view(-1, 2, 2).movedim(1, 0), radius.add_(0.5).mul_(2.0**-32), angle.mul_(2.0**-32))


def _normals64(words: Words) -> list[Tensor]:
    return _box_muller(*_uniforms64(words))


def _normals64_into(out: Tensor, words: list[Tensor]) -> None:
    pair = out.new_empty(2, len(out))
    _uniforms64_into(pair.T, words)
    _box_muller_into(out, pair[0], pair[1])


def _box_muller(radius: Tensor, angle: Tensor) -> list[Tensor]:
    """Two standard normals: Box & Muller, "A Note on the Generation of Random Normal Deviates", 1958."""
    length, turn = (-2.0 * radius.log()).sqrt(), 2.0 * math.pi * angle
    return [length * turn.cos(), length * turn.sin()]


def _box_muller_into(out: Tensor, radius: Tensor, angle: Tensor) -> None:
    """The same into shape [..., 2], in the memory of radius and angle, which are contiguous.

    Torch rounds logarithms, sines and cosines otherwise where memory is not.
    """
    length, turn = radius.log_().mul_(-2.0).sqrt_(), angle.mul_(2.0 * math.pi)
    torch.mul(length, turn.cos(), out=out[..., 0])
    torch.mul(length, turn.sin_(), out=out[..., 1])


@dataclass(frozen=True)
class _Maker:
    """How a sort of numbers is made of random words."""

    code: int
    """Part of the counter, so that sorts have nothing to do with each other."""
    pure: Callable[[Words], list[Tensor]]
    """Of four words: the numbers of a block."""
    into: Callable[[Tensor, list[Tensor]], None]
    """The same numbers written into shape [blocks, per_block], from words of shape [blocks]."""


_MAKERS = {
    Sort("uniform", torch.float32): _Maker(0, _uniforms32, _uniforms32_into),
    Sort("uniform", torch.float64): _Maker(1, _uniforms64, _uniforms64_into),
    Sort("normal", torch.float32): _Maker(2, _normals32, _normals32_into),
    Sort("normal", torch.float64): _Maker(3, _normals64, _normals64_into),
}
