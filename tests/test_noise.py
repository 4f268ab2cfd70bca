"""Noise by counter: known answers, distributions, and independence of everything but seed, step and draw."""

from __future__ import annotations

import math

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.quasirandom import SobolEngine

from sweepvi.engine.lanes import noise as noise_module
from sweepvi.engine.lanes.minibatches import Minibatch
from sweepvi.engine.lanes.minibatches import filled as minibatches
from sweepvi.engine.lanes.noise import Draw, NoiseLayout
from sweepvi.engine.lanes.noise_modes import TRACEABLE, noise_of_steps
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


def lane(layout, seed, step, stream=0, mode=None):
    at = torch.tensor([seed]), torch.tensor([step])
    noise = noise_of_steps(layout, mode, *at) if mode else layout.filled(*at, stream)
    return layout.of_lane({sort: row[0, 0] for sort, row in noise.items()})


def equal(one, other):
    return all(map(torch.equal, one, other))


def test_draws_have_their_shapes():
    draws = lane(NoiseLayout(DRAWS), 0, 0)
    assert [(tuple(draw.shape), draw.dtype) for draw in draws] == [(draw.shape, draw.dtype) for draw in DRAWS]


MODES = ["fresh", "fixed", "antithetic", "sobol"]
SEEDS = torch.tensor([4, 2**40 + 1, 0, 9])


@pytest.mark.parametrize("mode", MODES)
def test_draws_depend_on_neither_lane_nor_chunk(mode):
    layout, steps = NoiseLayout(DRAWS), torch.arange(5, 25)
    each_its_own = steps[:, None] * torch.tensor([1, 2, 3, 2**20])
    for at in (steps, each_its_own):
        noise = noise_of_steps(layout, mode, SEEDS, at)
        for k, seed in enumerate(SEEDS.tolist()):
            for t, step in enumerate((at if at.dim() == 1 else at[:, k]).tolist()):
                here = layout.of_lane({sort: row[t, k] for sort, row in noise.items()})
                assert equal(here, lane(layout, seed, step, mode=mode))


@pytest.mark.parametrize("at_once", [1, 2, 7, 1000])
@pytest.mark.parametrize("size", [1, 4, 9, 1301])
def test_draws_do_not_depend_on_how_many_are_made_at_once(at_once, size, monkeypatch):
    layout = NoiseLayout([Draw(kind, (size,), dtype) for kind in ("normal", "uniform") for dtype in (F32, F64)])
    steps = torch.arange(3)
    expected = layout.filled(SEEDS[:3], steps)
    monkeypatch.setitem(noise_module._BLOCKS_AT_ONCE, "cpu", at_once * max(1, size // 100))
    found = layout.filled(SEEDS[:3], steps)
    assert equal(expected.values(), found.values())


@pytest.mark.parametrize("mode", sorted(TRACEABLE))
@pytest.mark.parametrize("steps", [torch.arange(3, 8), torch.arange(20).view(5, 4)], ids=["in_step", "each_its_own"])
@pytest.mark.parametrize("tracing", ["real", "fake"])
def test_traced_draws_are_the_same(mode, steps, tracing):
    """At seeds and steps that were not traced."""
    layout = NoiseLayout(DRAWS)

    def flat(seeds, steps):
        return list(noise_of_steps(layout, mode, seeds, steps).values())

    graph = make_fx(flat, tracing_mode=tracing)(SEEDS, steps)
    assert equal(graph(SEEDS + 2**33, steps * 7 + 2), flat(SEEDS + 2**33, steps * 7 + 2))


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_compiled_draws_are_the_same_up_to_rounding(monkeypatch):
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)  # compiling turns it off, for good
    layout, steps = NoiseLayout(DRAWS), torch.arange(500)
    compiled = torch.compile(layout.filled, dynamic=False)(SEEDS, steps)
    for sort, expected in layout.filled(SEEDS, steps).items():
        if sort.kind == "uniform":
            assert torch.equal(compiled[sort], expected)
        else:
            rounding = torch.finfo(sort.dtype).eps * expected.abs().clamp_min(1.0)
            assert ((compiled[sort] - expected).abs() <= 4 * rounding).all()


def test_draws_of_sixteen_bits_are_refused():
    with pytest.raises(TypeError, match=r"draws of torch\.float16 are not known"):
        NoiseLayout([Draw("uniform", (3,), torch.float16)])


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
    edges = torch.tensor([0, 1, ONES - 1, ONES])
    grid = torch.cartesian_prod(edges, edges, edges, edges).unbind(1)
    for make in [maker.pure for maker in noise_module._MAKERS.values()]:
        assert all(bool(numbers.isfinite().all()) for numbers in make(grid))
    for make in (noise_module._uniforms32, noise_module._uniforms64):
        assert all(bool(((numbers > 0) & (numbers < 1)).all()) for numbers in make(grid))


def test_lanes_steps_and_draws_are_not_correlated():
    layout = NoiseLayout([Draw("normal", (3,), F32), Draw("normal", (3,), F64), Draw("uniform", (3,), F64)])
    noise = layout.filled(torch.arange(1000), torch.arange(1000, 1004)).values()  # of neighbours in all respects
    columns = torch.cat([row[..., :3].permute(0, 2, 1).reshape(-1, 1000).double() for row in noise])
    off_diagonal = torch.corrcoef(columns) - torch.eye(len(columns))
    assert off_diagonal.abs().max() < 5 / math.sqrt(1000)
    normals = columns[:24]
    for lag in (1, 2, 500):
        assert abs((normals[:, lag:] * normals[:, :-lag]).mean()) < 5 / math.sqrt(24 * (1000 - lag))
    assert abs((1000 * normals.mean(1) ** 2).mean() - 1) < 4 * math.sqrt(2 / 24)  # of the mean over lanes


def test_moments_of_normals():
    for dtype in (F32, F64):
        [z] = lane(NoiseLayout([Draw("normal", (SIZE,), dtype)]), 5, 3)
        for power, exact, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            assert abs((z.double() ** power).mean() - exact) < 4 * math.sqrt(variance / SIZE)


def test_fixed_steps_have_the_draws_of_the_first():
    layout = NoiseLayout(DRAWS)
    assert equal(lane(layout, 3, 17, mode="fixed"), lane(layout, 3, 0))


def test_antithetic_steps_mirror_the_step_before():
    layout = NoiseLayout(DRAWS)
    even, odd = lane(layout, 3, 8, mode="antithetic"), lane(layout, 3, 9, mode="antithetic")
    assert equal(even, lane(layout, 3, 8))
    for draw, one, other in zip(DRAWS, even, odd, strict=True):
        assert torch.equal(one + other, torch.full_like(one, float(draw.kind == "uniform")))  # exactly
    assert not equal(even[:1], lane(layout, 3, 10, mode="antithetic")[:1])


def sobol(draw, lanes, steps):
    """Shape [steps, lanes, numbers]."""
    [row] = noise_of_steps(NoiseLayout([draw]), "sobol", torch.arange(lanes), torch.arange(steps)).values()
    return row[..., : draw.size]


def test_sobol_steps_are_torchs_points_shifted():
    size, steps = 30, 70
    found = (sobol(Draw("uniform", (size,), F64), 2, steps)[:, 1] * 2.0**52).long() >> 22
    points = (SobolEngine(size).draw(steps, dtype=F64) * 2**30).long()
    assert torch.equal(found ^ found[:1], points)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize("dtype", [F32, F64])
def test_sobol_draws_are_distributed_as_others(kind, dtype):
    """Over seeds, at one step; and more evenly than others over steps."""
    cdf = torch.special.ndtr if kind == "normal" else (lambda x: x)
    row = sobol(Draw(kind, (3,), dtype), 20_000, 4)
    for step in range(4):
        for number in range(3):
            assert kolmogorov_distance(row[step, :, number], cdf) < 2.2 / math.sqrt(20_000)
    row = sobol(Draw(kind, (3,), dtype), 4, 1024)
    for number in range(3):
        assert kolmogorov_distance(row[:, 2, number], cdf) < 2.1 / 1024  # of independent ones 0.03


def test_sobol_steps_integrate_better():
    errors = {}
    for mode in ("fresh", "sobol"):
        layout = NoiseLayout([Draw("normal", (5,), F64)])
        [row] = noise_of_steps(layout, mode, torch.arange(50), torch.arange(512)).values()
        errors[mode] = (row[..., :5].square().sum(-1).mean(0) - 5).abs().mean()
    assert errors["sobol"] < errors["fresh"] / 5


def test_sobol_draws_are_finite_at_the_ends():
    from sweepvi.engine.lanes.noise import Sort
    from sweepvi.engine.lanes.sobol import _numbers

    ends = torch.tensor([0, 2**52 - 1])
    for dtype in (F32, F64):
        normal = _numbers(Sort("normal", dtype), ends)
        assert torch.allclose(normal, torch.tensor([-8.2, 8.2], dtype=dtype), atol=0.1)
        uniform = _numbers(Sort("uniform", dtype), ends)
        assert 0 < uniform[0] < uniform[1] < 1


def test_beyond_the_dimensions_of_sobol_draws_are_independent():
    size = SobolEngine.MAXDIM
    layout = NoiseLayout([Draw("normal", (size - 1,), F64), Draw("uniform", (4,), F64)])
    normal, uniform = lane(layout, 3, 5, mode="sobol")
    fresh_normal, fresh_uniform = lane(layout, 3, 5)
    assert not (normal == fresh_normal).any()
    assert (uniform == fresh_uniform).tolist() == [False, True, True, True]


CHOICES = [Minibatch("rows", 12, 5), Minibatch("columns", 7, 6)]


def test_minibatches_depend_on_seed_and_step_alone():
    steps = torch.tensor([[3, 8], [4, 8], [5, 0]])
    for found, choice, place in zip(minibatches(CHOICES, 2, steps), CHOICES, (0, 1), strict=True):
        assert tuple(found.shape) == (3, 2, choice.taken)
        for (t, k), step in zip([(t, k) for t in range(3) for k in range(2)], steps.flatten().tolist(), strict=True):
            alone = minibatches(CHOICES, 2, torch.tensor([step]))[place]
            assert torch.equal(found[t, k], alone[0])
    assert not equal(minibatches(CHOICES, 2, steps), minibatches(CHOICES, 3, steps))


def test_minibatches_are_draws_without_replacement():
    """All ordered pairs are as frequent as each other."""
    count = 40_000
    [found] = minibatches([Minibatch("rows", 5, 2)], 0, torch.arange(count))
    assert (found[:, 0] != found[:, 1]).all()
    pairs = torch.bincount(found[:, 0] * 5 + found[:, 1], minlength=25).view(5, 5).double()
    expected = count / 20
    chi_squared = ((pairs - expected) ** 2 / expected)[~torch.eye(5, dtype=torch.bool)].sum()
    assert chi_squared < 45.3  # 19 degrees of freedom: 1 in 1,600


def kolmogorov_distance(values, cdf):
    sample = cdf(values.double().sort().values)
    ranks = torch.arange(len(values) + 1, dtype=F64) / len(values)
    return max((ranks[1:] - sample).max().item(), (sample - ranks[:-1]).max().item())
