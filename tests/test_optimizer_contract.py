"""Every update rule, held to the same contract. A new optimizer adds a row to ``REFERENCES``."""

from __future__ import annotations

import copy

import pyro
import pytest
import torch
from pyro.optim.clipped_adam import ClippedAdam as PyroClippedAdam

from sweepvi import optim, registry
from sweepvi.optim.torch_face import optimizer_from

SHAPES = [(), (3,), (2, 4)]
# name, independent reference, settings
REFERENCES = [
    ("clipped_adam", PyroClippedAdam, {"lr": 0.01}),
    (
        "clipped_adam",
        PyroClippedAdam,
        {"lr": 0.1, "clip_norm": 0.5, "lrd": 0.99, "weight_decay": 0.1, "betas": (0.8, 0.9)},
    ),
    ("clipped_adam", PyroClippedAdam, {"lr": 0.01, "centered_variance": True, "eps": 0.01}),
    ("adam", torch.optim.Adam, {"lr": 0.01}),
    ("adam", torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.1, "amsgrad": True, "betas": (0.8, 0.9), "eps": 0.01}),
    ("adamw", torch.optim.AdamW, {"lr": 0.01}),
    ("adamw", torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.3, "amsgrad": True}),
    ("sgd", torch.optim.SGD, {"lr": 0.01}),
    ("sgd", torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("sgd", torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    ("sgd", torch.optim.SGD, {"lr": 0.01, "dampening": 0.3}),
    ("rmsprop", torch.optim.RMSprop, {"lr": 0.01}),
    (
        "rmsprop",
        torch.optim.RMSprop,
        {"lr": 0.01, "centered": True, "momentum": 0.9, "weight_decay": 0.1, "alpha": 0.9},
    ),
]
IDS = [f"{name}-{'-'.join(settings)}" for name, _, settings in REFERENCES]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def rule_of(name, settings):
    return registry.build("optimizer", {"name": name, **settings})


def stream(seed, dtype, steps, missing):
    """Gradients of very different sizes; with ``missing``, some parameters have none in some steps."""
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        gradients = []
        for place, shape in enumerate(SHAPES):
            size = 10 ** (2 * torch.randn((), generator=generator, dtype=dtype))
            gradient = size * torch.randn(shape, generator=generator, dtype=dtype)
            gradients.append(None if missing and (step + place) % 5 == 2 else gradient)
        yield gradients


def parameters(dtype):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in SHAPES]


def run(optimizer, params, gradients):
    for step in gradients:
        for param, gradient in zip(params, step, strict=True):
            param.grad = gradient
        optimizer.step()
    return params


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("missing", [False, True], ids=["all", "some_missing"])
@pytest.mark.parametrize(("name", "reference", "settings"), REFERENCES, ids=IDS)
def test_equals_the_reference(name, reference, settings, missing, dtype):
    ours, theirs = parameters(dtype), parameters(dtype)
    run(optimizer_from(rule_of(name, settings), ours), ours, stream(0, dtype, 300, missing))
    run(reference(theirs, **settings), theirs, stream(0, dtype, 300, missing))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_every_registered_optimizer_has_a_reference():
    assert {name for name, _, _ in REFERENCES} == set(registry.names("optimizer"))


@pytest.mark.parametrize(("name", "reference", "settings"), REFERENCES, ids=IDS)
def test_lanes_equal_lone_runs(name, reference, settings):
    """K fits in one arena [K, D], each with its own rate, are K fits."""
    del reference
    rule, K, D = rule_of(name, settings), 3, 5
    rates = torch.tensor([0.001, 0.01, 0.1], dtype=torch.float64).reshape(K, 1)
    generator = torch.Generator().manual_seed(0)
    start, grads = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((K, D), (20, K, D)))

    def trajectory(param, gradients, lr):
        slots = rule.init(param)
        for step, gradient in enumerate(gradients, start=1):
            hyper = {**rule.hyper(), "lr": lr * rule.decay(rule.hyper(), step)}
            delta, slots = rule.update(gradient, param, slots, hyper, step)
            param = param + delta
        return param

    together = trajectory(start, grads, rates)
    for lane in range(K):
        torch.testing.assert_close(
            together[lane], trajectory(start[lane], grads[:, lane], float(rates[lane])), rtol=1e-12, atol=0
        )


@pytest.mark.parametrize(("name", "reference", "settings"), REFERENCES, ids=IDS)
def test_a_rule_changes_none_of_its_inputs(name, reference, settings):
    del reference
    rule, param = rule_of(name, settings), torch.randn(4)
    slots, grad = rule.init(param), torch.randn(4)
    before = copy.deepcopy((param, slots, grad))
    rule.update(grad, param, slots, rule.hyper(), 1)
    assert torch.equal(param, before[0])
    assert torch.equal(grad, before[2])
    assert all(torch.equal(slots[key], before[1][key]) for key in slots)


@pytest.mark.parametrize(("name", "reference", "settings"), REFERENCES, ids=IDS)
def test_state_dict_resumes_in_the_middle(name, reference, settings):
    del reference
    rule, whole = rule_of(name, settings), parameters(torch.float64)
    run(optimizer_from(rule, whole), whole, stream(0, torch.float64, 40, True))
    gradients, parts = list(stream(0, torch.float64, 40, True)), parameters(torch.float64)
    first = optimizer_from(rule, parts)
    run(first, parts, gradients[:17])
    second = optimizer_from(rule, parts)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(second, parts, gradients[17:])
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


@pytest.mark.parametrize("name", registry.names("optimizer"))
def test_the_callers_gradient_and_rate_stay(name):
    params = parameters(torch.float32)
    optimizer = optimizer_from(rule_of(name, {}), params)
    gradients = next(stream(0, torch.float32, 1, False))
    run(optimizer, params, [[gradient.clone() for gradient in gradients]])
    assert all(torch.equal(param.grad, gradient) for param, gradient in zip(params, gradients, strict=True))
    assert optimizer.param_groups[0]["lr"] == rule_of(name, {}).lr


def test_works_in_pyros_own_svi():
    def model():
        pyro.sample("x", pyro.distributions.Normal(3.0, 1.0))

    def guide():
        pyro.sample("x", pyro.distributions.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    svi = pyro.infer.SVI(model, guide, pyro.optim.PyroOptim(optim.ClippedAdam, {"lr": 0.1}), pyro.infer.Trace_ELBO())
    for _ in range(150):
        svi.step()
    assert abs(pyro.param("loc").item() - 3.0) < 0.3
    pyro.clear_param_store()


def test_works_under_a_torch_scheduler_with_groups():
    one, two = (torch.zeros(2, requires_grad=True) for _ in range(2))
    optimizer = optim.Adam([{"params": [one]}, {"params": [two], "lr": 0.5}], lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    for _ in range(2):
        for param in (one, two):
            param.grad = torch.ones(2)
        optimizer.step()
        scheduler.step()
    torch.testing.assert_close(one, torch.full((2,), -0.11))
    torch.testing.assert_close(two, torch.full((2,), -0.55))


def test_out_of_range_is_a_value_error_that_names_the_key():
    with pytest.raises(ValueError, match=r"lr = -1: must be a number > 0"):
        optim.ClippedAdam([torch.zeros(1, requires_grad=True)], lr=-1)
    with pytest.raises(ValueError, match="nesterov"):
        optim.SGD([torch.zeros(1, requires_grad=True)], nesterov=True)
