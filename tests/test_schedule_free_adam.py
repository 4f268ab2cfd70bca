"""Schedule-free Adam: against the paper's three sequences, as lanes, resumed, on quadratics, with late parameters."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from sweepvi.optim.arena import Arena
from sweepvi.optim.clip import Clip
from sweepvi.optim.schedule_free_adam import ScheduleFreeAdam, ScheduleFreeAdamRule

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
SETTINGS = [
    {},
    {"lr": 0.3, "betas": (0.5, 0.9), "warmup_steps": 20, "weight_decay": 0.1},
    {"lr": 0.1, "r": 2.0, "weight_lr_power": 0.0, "eps": 1e-3},
    {"lr": 0.1, "r": 1.0, "weight_lr_power": 1.0, "warmup_steps": 1},
]
SHAPES = {"a": torch.Size(()), "b": torch.Size((3,)), "c": torch.Size((2, 4))}


def reference(start, gradients, lr=0.02, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, warmup_steps=0, **weights):
    """Algorithm 1 as printed, one number at a time: y is made of x and z anew at every step. Returns y and x."""
    (beta1, beta2), weight_sum = betas, 0.0
    r, power = weights.get("r", 0.0), weights.get("weight_lr_power", 2.0)
    x, z, v = list(start), list(start), [0.0] * len(start)
    for t, gradient in enumerate(gradients, start=1):
        gamma = lr * min(1.0, t / warmup_steps) if warmup_steps else lr
        weight_sum += t**r * gamma**power
        c = t**r * gamma**power / weight_sum
        for i, g in enumerate(gradient):
            y = (1 - beta1) * z[i] + beta1 * x[i]
            v[i] = beta2 * v[i] + (1 - beta2) * g * g
            v_hat = v[i] / (1 - beta2**t)
            z[i] = z[i] - gamma * g / (math.sqrt(v_hat) + eps) - gamma * weight_decay * y
            x[i] = (1 - c) * x[i] + c * z[i]
    return [(1 - beta1) * z_i + beta1 * x_i for z_i, x_i in zip(z, x, strict=True)], x


def parameters(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in SHAPES.values()]


def gradients(steps, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    sizes = 10 ** (2 * torch.randn((steps, 1), generator=generator, dtype=dtype))
    return sizes * torch.randn((steps, 12), generator=generator, dtype=dtype)


def run(optimizer, params, rows):
    for row in rows:
        for param, part in zip(params, row.split([param.numel() for param in params]), strict=True):
            param.grad = part.view(param.shape).clone()
        optimizer.step()


def flat(params):
    return torch.cat([param.detach().reshape(-1) for param in params])


def solve(params, optimizer, loss, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        loss(*params).backward()
        optimizer.step()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("settings", SETTINGS, ids=["-".join(settings) for settings in SETTINGS])
def test_equals_the_papers_algorithm(settings, dtype):
    params, rows = parameters(dtype), gradients(300, dtype=dtype)
    y, x = reference(flat(params).tolist(), rows.tolist(), **settings)
    optimizer = ScheduleFreeAdam(params, **{"lr": 0.02, **settings})
    run(optimizer, params, rows)
    close = {"rtol": TOLERANCE[dtype] * 100, "atol": TOLERANCE[dtype]}
    torch.testing.assert_close(flat(params), torch.tensor(y, dtype=dtype), **close)
    with optimizer.evaluated():
        torch.testing.assert_close(flat(params), torch.tensor(x, dtype=dtype), **close)


def test_the_average_is_weighted_by_a_schedules_step_size():
    """With lr halved after 10 steps, later z weigh a quarter; with lr zero, nothing moves and nothing is NaN."""
    params, rows = parameters(), gradients(30)
    optimizer = ScheduleFreeAdam(params, lr=0.1, betas=(0.9, 0.9))
    z, weights = [], []
    for step, row in enumerate(rows):
        optimizer.param_groups[0]["lr"] = lr = 0.0 if step < 3 else 0.1 if step < 10 else 0.05
        run(optimizer, params, [row])
        z.append(torch.cat([optimizer.state[param]["z"].reshape(-1) for param in params]))
        weights.append(lr**2)
    weights = torch.tensor(weights, dtype=torch.float64).unsqueeze(-1)
    with optimizer.evaluated():
        torch.testing.assert_close(flat(params), (weights * torch.stack(z)).sum(0) / weights.sum(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("lanes", [1, 3])
def test_lanes_equal_lone_runs(lanes):
    """Each lane with its own step size, betas, warm-up and gradients."""
    start = torch.stack([flat(parameters()) + lane for lane in range(lanes)])
    rows = torch.stack([gradients(50, seed) for seed in range(lanes)], 1)
    keys = {
        "lr": [0.01, 0.1, 1.0],
        "warmup_steps": [0.0, 1.0, 10.0],
        "weight_decay": [0.0, 0.1, 0.2],
        "r": [0.0, 1.0, 2.0],
        "weight_lr_power": [2.0, 0.0, 1.0],
    }
    own = {key: torch.tensor(values[:lanes], dtype=torch.float64).unsqueeze(-1) for key, values in keys.items()}
    rule = ScheduleFreeAdamRule(clip=Clip())
    arena, hyper = Arena(rule, SHAPES), {**rule.hyper(), **own}
    together, slots = start, arena.init(start, hyper)
    for step, row in enumerate(rows, start=1):
        together, slots = arena.update(row, together, slots, hyper, step)
    averages = rule.evaluated(together, {key.partition("/")[2]: slot for key, slot in slots.items()}, hyper)
    for lane in range(lanes):
        params = parameters()
        for param in params:
            param.data += lane
        numbers = {key: values[lane] for key, values in keys.items()}
        optimizer = ScheduleFreeAdam(params, **numbers)
        run(optimizer, params, rows[:, lane])
        torch.testing.assert_close(together[lane], flat(params), rtol=1e-12, atol=1e-14)
        with optimizer.evaluated():
            torch.testing.assert_close(averages[lane], flat(params), rtol=1e-12, atol=1e-14)


def test_state_dict_resumes_in_the_middle():
    rows, whole, parts = gradients(40), parameters(), parameters()
    optimizer = ScheduleFreeAdam(whole, warmup_steps=10)
    run(optimizer, whole, rows)
    first = ScheduleFreeAdam(parts, warmup_steps=10)
    run(first, parts, rows[:17])
    second = ScheduleFreeAdam(parts, warmup_steps=10)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(second, parts, rows[17:])
    assert torch.equal(flat(parts), flat(whole))
    with second.evaluated(), optimizer.evaluated():
        assert torch.equal(flat(parts), flat(whole))


def test_evaluated_restores_every_bit():
    params = parameters(torch.float32)
    optimizer = ScheduleFreeAdam(params)
    run(optimizer, params, gradients(20, dtype=torch.float32))
    before = flat(params)
    with optimizer.evaluated():
        assert not torch.equal(flat(params), before)
    assert torch.equal(flat(params), before)


def test_complex_parameters_are_averaged_as_pairs():
    values = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    pair, one = values.clone().requires_grad_(), torch.view_as_complex(values.clone()).requires_grad_()
    first, second = ScheduleFreeAdam([pair]), ScheduleFreeAdam([one])
    for _ in range(20):
        pair.grad, one.grad = pair.detach() - 1, one.detach() - (1 + 1j)
        first.step()
        second.step()
    with first.evaluated(), second.evaluated():
        assert torch.equal(pair.detach(), torch.view_as_real(one.detach()))
    assert torch.equal(pair.detach(), torch.view_as_real(one.detach()))


def test_the_average_settles_where_the_last_iterate_does_not():
    """On a noisy quadratic with a large constant step size, x is far closer to the optimum than y."""
    generator = torch.Generator().manual_seed(0)
    param = torch.full((50,), 3.0).requires_grad_()
    optimizer = ScheduleFreeAdam([param], lr=0.1)
    for _ in range(3000):
        param.grad = param.detach() - 1 + torch.randn(50, generator=generator)
        optimizer.step()
    with optimizer.evaluated():
        average = float((param.detach() - 1).norm())
    assert average < 0.7
    assert float((param.detach() - 1).norm()) > 1.5 * average


@pytest.mark.parametrize("distance", [1e-3, 1.0])
def test_solves_a_quadratic_at_its_defaults(distance):
    params = [torch.full((5,), distance, dtype=torch.float64).requires_grad_()]
    optimizer = ScheduleFreeAdam(params, lr=ScheduleFreeAdamRule().lr)
    solve(params, optimizer, lambda p: (p**2 * torch.tensor([0.01, 0.1, 1.0, 10.0, 100.0])).sum(), 5000)
    with optimizer.evaluated():
        assert float(params[0].detach().abs().max()) < 0.1 * distance


def test_missing_gradients_leave_a_parameter_and_its_average_alone():
    rows, params, lone = gradients(20), parameters(), parameters()[:1]
    optimizer, other = ScheduleFreeAdam(params), ScheduleFreeAdam(lone)
    for step, row in enumerate(rows):
        run(optimizer, params, [row]) if step % 3 else run_without_first(optimizer, params, row)
    run(other, lone, [row[:1] for step, row in enumerate(rows) if step % 3])
    assert torch.equal(params[0], lone[0])
    with optimizer.evaluated(), other.evaluated():
        assert torch.equal(params[0], lone[0])


def run_without_first(optimizer, params, row):
    for param, part in zip(params, row.split([param.numel() for param in params]), strict=True):
        param.grad = part.view(param.shape).clone()
    params[0].grad = None
    optimizer.step()


def test_a_late_parameter_is_averaged_from_when_it_comes():
    rows, params = gradients(20), parameters()
    optimizer = ScheduleFreeAdam([("a", params[0])])
    run(optimizer, params[:1], [row[:1] for row in rows])
    optimizer.extend(0, ["b", "c"], params[1:])
    run(optimizer, params, gradients(20, seed=1))
    fresh = parameters()
    alone = ScheduleFreeAdam(fresh[1:])
    run(alone, fresh[1:], gradients(20, seed=1)[:, 1:])
    with optimizer.evaluated(), alone.evaluated():
        for late, new in zip(params[1:], fresh[1:], strict=True):
            torch.testing.assert_close(late, new, rtol=1e-12, atol=0)


def test_a_zero_gradient_changes_nothing():
    params = parameters(torch.float32)
    before = flat(params)
    optimizer = ScheduleFreeAdam(params)
    run(optimizer, params, torch.zeros(5, 12))
    torch.testing.assert_close(flat(params), before)
