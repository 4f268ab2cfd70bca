"""The orthonormal discrete cosine transform along the last dimension, by one real FFT of the same length.

Makhoul, "A fast cosine transform in one and two dimensions", IEEE Trans. ASSP 28, 1980. For x of length N::

    X_k = √(2/N) · c_k · Σₙ xₙ cos(π k (2n + 1) / 2N),    c_0 = √½, else 1

that is the DCT of type II; its inverse is its transpose. Conventions are those of ``pyro.ops.tensor_utils.dct`` and
``idct``, and so, on a CPU, are the results, to the last bit.

The even entries in order, then the odd ones in reverse, have a spectrum that, turned by exp(−iπk/2N), is X at k in its
real part and minus X at N − k in its imaginary part. Entries are reordered by index, the cheapest way on a CPU.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor


class _Plan(NamedTuple):
    """The constants of a transform of length N."""

    fold: Tensor
    """Where the FFT's entries are in a series: the even ones, then the odd ones in reverse."""
    unfold: Tensor
    turn: Tensor
    """exp(−iπk/2N) for k = 0 … N // 2."""
    gather: Tensor
    """Where X is in the turned spectrum, seen as real numbers."""
    gather_scale: Tensor
    """What divides it there; negative where it is an imaginary part."""
    turn_back: Tensor
    spread: Tensor
    """Where the turned spectrum is in X."""
    spread_scale: Tensor


def cosine_transform(x: Tensor) -> Tensor:
    """The DCT of type II along the last dimension, whose length is not 0."""
    plan = _plan(x)
    # The order of the factors matters to the last bit: a fused multiply-add rounds one product, and not the other.
    spectrum = plan.turn * torch.fft.rfft(x.index_select(-1, plan.fold))
    return torch.view_as_real(spectrum).flatten(-2).index_select(-1, plan.gather) / plan.gather_scale


def inverse_cosine_transform(x: Tensor) -> Tensor:
    """The inverse of :func:`cosine_transform`."""
    plan = _plan(x)
    spectrum = (x.index_select(-1, plan.spread) * plan.spread_scale).unflatten(-1, (-1, 2))
    folded = torch.fft.irfft(plan.turn_back * torch.view_as_complex(spectrum), n=x.shape[-1])
    return folded.index_select(-1, plan.unfold)


def _plan(x: Tensor) -> _Plan:
    key = x.shape[-1], x.dtype, x.device
    # A compiled program has constants of its own: what is seen while it is traced must not get into the cache.
    return _make(*key) if torch.compiler.is_compiling() else _cached(*key)


def _make(N: int, dtype: torch.dtype, device: torch.device) -> _Plan:
    half = N // 2 + 1
    k = torch.arange(N, device=device)
    fold = torch.cat([k[::2], k[1::2].flip(0)])
    gather = torch.where(k < half, 2 * k, 2 * (N - k) + 1)
    mirrored = (N - k[:half]) % N
    spread = torch.stack([k[:half], mirrored], dim=-1).flatten()
    scale = torch.full((N,), math.sqrt(0.5 * N), dtype=dtype, device=device)
    scale[0] = math.sqrt(N)
    signs = torch.ones(half, 2, dtype=dtype, device=device)
    signs[:, 1] = -1
    signs[0, 1] = 0
    # Cosines in the parameter's type, not rounded from better ones: so they are Pyro's.
    cosines = torch.linspace(0, 0.5 * math.pi, N + 1, dtype=dtype, device=device).cos()
    real, imag = cosines[:half], cosines[-half:].flip(0)
    return _Plan(
        fold=fold,
        unfold=fold.argsort(),
        turn=torch.complex(real, -imag),
        gather=gather,
        gather_scale=torch.where(k < half, scale, -scale),
        turn_back=torch.complex(real, imag),
        spread=spread,
        spread_scale=scale[spread] * signs.flatten(),
    )


_cached = functools.lru_cache(maxsize=256)(_make)
