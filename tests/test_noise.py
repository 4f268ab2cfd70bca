"""Noise by counter: known answers, distributions, and independence of everything but seed, step and draw."""

from __future__ import annotations

import math

import pytest
import torch

from sweepvi.engine.lanes.noise import Draw, NoiseLayout
from sweepvi.engine.lanes.philox import philox

F32, F64 = torch.float32, torch.float64
DRAWS = [
    Draw("normal", (3,), F32),
    Draw("uniform", (), F64),
    Draw("normal", (2, 5), F32),
    Draw("normal", (0,), F32),
    Draw("normal", (3,), F64),
    Draw("uniform", (7,), F32),
]
ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_the_generator_is_philox(counter, key, answer):
    """Known answers of Random123, the authors' own library."""
    words = philox(tuple(map(torch.tensor, counter)), key)
    assert tuple(map(int, words)) == answer


def lane(layout, seed, step, stream=0):
    noise = layout.filled(torch.tensor([seed]), torch.tensor([step]), stream)
    return layout.of_lane({sort: row[0, 0] for sort, row in noise.items()})


def equal(one, other):
    return all(map(torch.equal, one, other))


def test_draws_have_their_shapes():
    draws = lane(NoiseLayout(DRAWS), 0, 0)
    assert [(tuple(draw.shape), draw.dtype) for draw in draws] == [(draw.shape, draw.dtype) for draw in DRAWS]


def test_draws_depend_on_neither_lane_nor_chunk():
    layout = NoiseLayout(DRAWS)
    seeds, steps = torch.tensor([4, 2**40 + 1, 0, 9]), torch.arange(5, 25)
    noise = layout.filled(seeds, steps)
    for k, seed in enumerate(seeds.tolist()):
        for t, step in enumerate(steps.tolist()):
            here = layout.of_lane({sort: row[t, k] for sort, row in noise.items()})
            assert equal(here, lane(layout, seed, step))


def test_a_draw_does_not_depend_on_those_after_it():
    assert equal(lane(NoiseLayout(DRAWS[:3]), 3, 1), lane(NoiseLayout(DRAWS), 3, 1)[:3])


@pytest.mark.parametrize("other", [(2**32, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=str)
def test_seed_step_and_stream_all_count(other):
    layout = NoiseLayout([Draw("uniform", (1000,), F64), Draw("uniform", (1000,), F64)])
    one, two = lane(layout, 0, 0)
    assert not any(equal([one], [draw]) for draw in [two, *lane(layout, *other)])
    for draw in [two, *lane(layout, *other)]:
        assert abs(torch.corrcoef(torch.stack([one, draw]))[0, 1]) < 4 / math.sqrt(1000)


SIZE = 200_000


@pytest.mark.parametrize("dtype", [F32, F64])
def test_uniforms_are_uniform(dtype):
    [values] = lane(NoiseLayout([Draw("uniform", (SIZE,), dtype)]), 11, 0)
    assert 0 < values.min() < 1e-4
    assert 1 - 1e-4 < values.max() < 1
    assert kolmogorov_distance(values, lambda x: x) < 1.95 / math.sqrt(SIZE)  # its 0.1 % quantile


@pytest.mark.parametrize("dtype", [F32, F64])
def test_normals_are_normal(dtype):
    [values] = lane(NoiseLayout([Draw("normal", (SIZE,), dtype)]), 11, 0)
    assert kolmogorov_distance(values, torch.special.ndtr) < 1.95 / math.sqrt(SIZE)
    assert values.abs().max() > 4
    for lag in (1, 2, 3, SIZE // 2):  # the two of a pair, and the pairs of a block
        assert abs(torch.corrcoef(torch.stack([values[lag:], values[:-lag]]))[0, 1]) < 4 / math.sqrt(SIZE / 2)


def test_words_at_the_edges_give_finite_numbers():
    from sweepvi.engine.lanes import noise

    edges = torch.tensor([0, 1, ONES - 1, ONES])
    grid = torch.cartesian_prod(edges, edges, edges, edges).unbind(1)
    for make in [maker.pure for maker in noise._MAKERS.values()]:
        assert all(bool(numbers.isfinite().all()) for numbers in make(grid))
    for make in (noise._uniforms32, noise._uniforms64):
        assert all(bool(((numbers > 0) & (numbers < 1)).all()) for numbers in make(grid))


def kolmogorov_distance(values, cdf):
    sample = cdf(values.double().sort().values)
    ranks = torch.arange(len(values) + 1, dtype=F64) / len(values)
    return max((ranks[1:] - sample).max().item(), (sample - ranks[:-1]).max().item())
