"""Schedule-free Prodigy: against its equations one number at a time, as lanes, resumed, from near and far."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from sweepvi.optim.arena import Arena
from sweepvi.optim.schedule_free_prodigy import ScheduleFreeProdigy, ScheduleFreeProdigyRule
from sweepvi.optim.torch_face import optimizer_from

SETTINGS = [
    {},
    {"lr": 0.3, "betas": (0.5, 0.9), "weight_decay": 0.1, "d_coef": 1.0},
    {"lr": 2.0, "d0": 1e-3, "eps": 1e-2},
]
SHAPES = {"a": torch.Size(()), "b": torch.Size((3,)), "c": torch.Size((2, 4))}


class Reference:
    """The algorithm in plain Python, with x, y and z kept, every number for itself."""

    def __init__(self, start, lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, d0=1e-6, d_coef=0.3):
        self.settings, (self.beta1, self.beta2) = (lr, eps, weight_decay, d0, d_coef), betas
        self.x0, self.x, self.y, self.z = list(start), list(start), list(start), list(start)
        self.v, self.s = [0.0] * len(start), [0.0] * len(start)
        self.n, self.d, self.weights, self.t = 0.0, d0, 0.0, 0

    def step(self, gradient):
        lr, eps, weight_decay, d0, d_coef = self.settings
        self.t += 1
        d, beta3 = self.d, math.sqrt(self.beta2)
        self.n = beta3 * self.n
        for i, g in enumerate(gradient):
            self.n += lr * d * d / d0 * g * (self.x0[i] - self.y[i])
            self.s[i] = beta3 * self.s[i] + lr * d * d / d0 * g
            self.v[i] = self.beta2 * self.v[i] + (1 - self.beta2) * (d * g) ** 2
        norm = sum(abs(s) for s in self.s)
        if norm > 0:
            self.d = max(d, d_coef * self.n / norm)
        self.weights += (lr * d) ** 2
        c = (lr * d) ** 2 / self.weights
        for i, g in enumerate(gradient):
            root = math.sqrt(self.v[i] / (1 - self.beta2**self.t))
            self.z[i] -= lr * d * (d * g / (root + self.d * eps) + weight_decay * self.y[i])
            self.x[i] = (1 - c) * self.x[i] + c * self.z[i]
            self.y[i] = (1 - self.beta1) * self.z[i] + self.beta1 * self.x[i]


def parameters(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in SHAPES.values()]


def flat(params):
    return torch.cat([param.detach().reshape(-1) for param in params])


def slope(values, noise):
    """Gradient of a badly scaled quadratic around 5, with noise: d settles where the algorithm sees fit."""
    return (values - 5) * torch.logspace(-2, 2, len(values), dtype=values.dtype) + noise.to(values.dtype)


def noises(steps, seed=0):
    return torch.randn((steps, 12), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def advance(optimizer, params, gradient):
    for param, part in zip(params, gradient.split([param.numel() for param in params]), strict=True):
        param.grad = part.view(param.shape).clone()
    optimizer.step()


def run(optimizer, params, rows):
    for noise in rows:
        advance(optimizer, params, slope(flat(params), noise))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("settings", SETTINGS, ids=["-".join(settings) for settings in SETTINGS])
def test_equals_the_reference(settings, dtype):
    """On gradients taken where the reference stands, which rounding would else drive apart."""
    params = parameters(dtype)
    optimizer, reference = ScheduleFreeProdigy(params, **settings), Reference(flat(params).tolist(), **settings)
    for noise in noises(300):
        gradient = slope(torch.tensor(reference.y, dtype=dtype), noise)
        advance(optimizer, params, gradient)
        reference.step(gradient.tolist())
    close = {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(flat(params), torch.tensor(reference.y, dtype=dtype), **close)
    assert reference.d > 0.1
    assert optimizer.effective_rate() == pytest.approx(optimizer.param_groups[0]["lr"] * reference.d, rel=close["rtol"])
    with optimizer.evaluated():
        torch.testing.assert_close(flat(params), torch.tensor(reference.x, dtype=dtype), **close)


@pytest.mark.parametrize("lanes", [1, 3])
def test_lanes_equal_lone_runs(lanes):
    start = torch.stack([flat(parameters()) + lane for lane in range(lanes)])
    keys = {"lr": [1.0, 0.3, 2.0], "d0": [1e-6, 1e-4, 1e-5], "d_coef": [0.3, 1.0, 0.1], "weight_decay": [0.0, 0.1, 0.2]}
    own = {key: torch.tensor(values[:lanes], dtype=torch.float64).unsqueeze(-1) for key, values in keys.items()}
    rule, rows = ScheduleFreeProdigyRule(), torch.stack([noises(60, seed) for seed in range(lanes)], 1)
    arena, hyper = Arena(rule, SHAPES), {**rule.hyper(), **own}
    together, slots = start, arena.init(start, hyper)
    for step, row in enumerate(rows, start=1):
        grads = torch.stack([slope(values, noise) for values, noise in zip(together, row, strict=True)])
        together, slots = arena.update(grads, together, slots, hyper, step)
    named = {key.partition("/")[2]: slot for key, slot in slots.items()}
    averages, sizes = rule.evaluated(together, named, hyper), rule.size(named)
    for lane in range(lanes):
        params = parameters()
        for param in params:
            param.data += lane
        optimizer = ScheduleFreeProdigy(params, **{key: values[lane] for key, values in keys.items()})
        run(optimizer, params, rows[:, lane])
        torch.testing.assert_close(together[lane], flat(params), rtol=1e-9, atol=1e-12)
        assert optimizer.effective_rate() == pytest.approx(keys["lr"][lane] * float(sizes[lane]), rel=1e-9)
        with optimizer.evaluated():
            torch.testing.assert_close(averages[lane], flat(params), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("start", "distance"), [(0.0, 1e-3), (0.0, 1.0), (0.0, 1e3), (-1e4, 10.0), (1e6, 1e3)])
def test_solves_a_noisy_quadratic_from_near_and_far(start, distance, dtype):
    """No setting is touched. Noise is a tenth of the slope; float32 does not see the first steps from a million."""
    target, scales = start + distance * torch.tensor([1.0, -0.5, 0.3, 1.0, -1.0]), torch.logspace(-2, 2, 5)
    param, generator = torch.full((5,), start, dtype=dtype).requires_grad_(), torch.Generator().manual_seed(0)
    optimizer = ScheduleFreeProdigy([param])
    for _ in range(3000):
        noise = 0.1 * distance * torch.randn(5, generator=generator)
        param.grad = (scales * (param.detach() - target + noise)).to(dtype)
        optimizer.step()
    with optimizer.evaluated():
        assert float((param.detach() - target).abs().max()) < 0.02 * distance
    assert 0.01 * distance < optimizer.effective_rate() < distance


def test_state_dict_resumes_in_the_middle():
    rows, whole, parts = noises(40), parameters(), parameters()
    optimizer = ScheduleFreeProdigy(whole)
    run(optimizer, whole, rows)
    first = ScheduleFreeProdigy(parts)
    run(first, parts, rows[:17])
    second = ScheduleFreeProdigy(parts)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(second, parts, rows[17:])
    assert torch.equal(flat(parts), flat(whole))
    assert second.effective_rate() == optimizer.effective_rate()
    with second.evaluated(), optimizer.evaluated():
        assert torch.equal(flat(parts), flat(whole))


def test_evaluated_restores_every_bit():
    params = parameters(torch.float32)
    optimizer = ScheduleFreeProdigy(params)
    run(optimizer, params, noises(50))
    before = flat(params)
    with optimizer.evaluated():
        assert not torch.equal(flat(params), before)
    assert torch.equal(flat(params), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_zero_gradients_first_leave_all_as_it_is(dtype):
    params, untouched = parameters(dtype), parameters(dtype)
    optimizer = ScheduleFreeProdigy(params)
    for _ in range(5):
        advance(optimizer, params, torch.zeros(12, dtype=dtype))
    torch.testing.assert_close(flat(params), flat(untouched))
    assert optimizer.effective_rate() == pytest.approx(1e-6)
    run(optimizer, params, noises(300))
    assert optimizer.effective_rate() > 0.1
    with optimizer.evaluated():
        assert torch.isfinite(flat(params)).all()


def test_a_step_size_held_at_zero_does_nothing():
    params, untouched = parameters(), parameters()
    optimizer = ScheduleFreeProdigy(params)
    optimizer.param_groups[0]["lr"] = 0.0
    run(optimizer, params, noises(3))
    torch.testing.assert_close(flat(params), flat(untouched))
    optimizer.param_groups[0]["lr"] = 1.0
    run(optimizer, params, noises(300))
    assert optimizer.effective_rate() > 0.1


def test_a_parameter_without_a_gradient_stays():
    params = parameters()
    optimizer = ScheduleFreeProdigy(params)
    for noise in noises(50):
        gradient = slope(flat(params), noise)
        for param, part in zip(params, gradient.split([1, 3, 8]), strict=True):
            param.grad = part.view(param.shape)
        params[0].grad = None
        optimizer.step()
    torch.testing.assert_close(params[0], parameters()[0])
    assert not torch.equal(params[1], parameters()[1])


def test_a_late_parameter_starts_as_gently_as_any():
    """Its first step is no larger than the step size found by then, and its average runs from when it comes."""
    params = parameters()
    optimizer = ScheduleFreeProdigy([("a", params[0])])
    for _ in range(300):
        params[0].grad = params[0].detach() - 5
        optimizer.step()
    size, before = optimizer.effective_rate(), flat(params[1:])
    assert size > 0.1
    optimizer.extend(0, ["b", "c"], params[1:])
    advance(optimizer, params, 3 * torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(flat(params[1:]), before - size, rtol=1e-6, atol=0)
    with optimizer.evaluated():
        torch.testing.assert_close(flat(params[1:]), before - size, rtol=1e-6, atol=0)
    assert optimizer.effective_rate() == pytest.approx(size)
    run(optimizer, params, noises(3000))
    with optimizer.evaluated():
        torch.testing.assert_close(flat(params)[4:], torch.full((8,), 5.0, dtype=torch.float64), rtol=0, atol=0.5)


def test_clip_bounds_what_it_sees():
    params, same = parameters(), parameters()
    rule = ScheduleFreeProdigyRule(clip={"value": 1.0})  # pyright: ignore[reportArgumentType]
    bounded, plain = optimizer_from(rule, params), ScheduleFreeProdigy(same)
    for noise in noises(20):
        gradient = 3 * noise
        advance(bounded, params, gradient)
        advance(plain, same, gradient.clamp(-1, 1))
    assert torch.equal(flat(params), flat(same))
