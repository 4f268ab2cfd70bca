"""DCTAdam: Pyro's own class is the reference; where Pyro's stops, one of it for each element or series."""

from __future__ import annotations

import copy
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.ops.tensor_utils import dct, idct
from pyro.optim.dct_adam import DCTAdam as PyroDCTAdam

import sweepvi
from sweepvi.optim import dct_adam
from sweepvi.optim.arena import Arena
from sweepvi.optim.cosine_transform import cosine_transform, inverse_cosine_transform
from sweepvi.optim.dct_adam import DCTAdam, DCTAdamRule

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
SETTINGS = [
    {"lr": 0.01},
    {"lr": 0.1, "clip_norm": 0.5, "lrd": 0.99, "betas": (0.8, 0.9), "eps": 0.01},
]
# shape, time dimension; 7, 11 and 13 are padded to 8, 12 and 15
SERIES = [
    ((16,), -1),
    ((7,), -1),
    ((3, 11), -1),
    ((13, 2), -2),
    ((2, 7, 3), -2),
    ((2, 1), -1),
    ((4,), None),
    ((2, 3), None),
    ((), None),
]


def parameter(shape, dtype=torch.float64, dim=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    param = torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()
    if dim is not None:
        param._pyro_dct_dim = dim
    return param


def series(dtype):
    return [parameter(shape, dtype, dim, seed) for seed, (shape, dim) in enumerate(SERIES)]


def gradients(shapes, dtype, steps, seed=0, missing=False):
    """Gradients from 1e-15 to 1e15 and beyond; with ``missing``, some parameters have none in some steps."""
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        sizes = [10 ** (4 * torch.randn((), generator=generator, dtype=dtype)) for _ in shapes]
        made = [
            size * torch.randn(shape, generator=generator, dtype=dtype)
            for size, shape in zip(sizes, shapes, strict=True)
        ]
        yield [None if missing and (step + place) % 5 == 2 else gradient for place, gradient in enumerate(made)]


def run(optimizer, params, stream, minibatches=None):
    for step, gradient in enumerate(stream):
        for place, param in enumerate(params):
            param.grad = None if gradient[place] is None else gradient[place].clone()
            if minibatches is not None:
                param._pyro_subsample = minibatches[step][place]
        optimizer.step()
    return params


def close(ours, theirs, tolerance=None):
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        bound = TOLERANCE[mine.dtype] if tolerance is None else tolerance
        torch.testing.assert_close(mine.detach(), other.detach(), rtol=bound, atol=bound)


# The transform


@pytest.mark.parametrize("length", [*range(1, 17), 25, 1000, 1024])
def test_the_transform_is_the_sum_of_cosines(length):
    x = parameter((3, length)).detach()
    n = torch.arange(length, dtype=torch.float64)
    basis = math.sqrt(2 / length) * torch.cos(math.pi / length * n[:, None] * (n + 0.5))
    basis[0] /= math.sqrt(2)
    torch.testing.assert_close(cosine_transform(x), x @ basis.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(inverse_cosine_transform(x), x @ basis, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("length", [1, 2, 3, 8, 15, 81, 1000, 1024])
def test_the_transform_is_pyros(length, dtype):
    """Within rounding of a few bits: what is beneath it, Adam blows up to the size of a step."""
    x = parameter((5, length), dtype).detach()
    bound = {"rtol": 0, "atol": 4 * torch.finfo(dtype).eps}
    torch.testing.assert_close(cosine_transform(x), dct(x), **bound)
    torch.testing.assert_close(inverse_cosine_transform(x), idct(x), **bound)
    torch.testing.assert_close(torch.vmap(cosine_transform)(x), dct(x), **bound)


# Streams of Pyro's own class


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("missing", [False, True], ids=["all", "some_missing"])
@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "all_settings"])
def test_equals_pyros(settings, missing, dtype):
    ours, theirs = series(dtype), series(dtype)
    shapes = [shape for shape, _ in SERIES]
    run(DCTAdam(ours, **settings), ours, gradients(shapes, dtype, 300, missing=missing))
    run(PyroDCTAdam(theirs, **settings), theirs, gradients(shapes, dtype, 300, missing=missing))
    close(ours, theirs)


def minibatches(shapes, steps, dims, seed=1):
    """``_pyro_subsample`` of each parameter in each step: half of the entries of the given dimensions."""
    generator = torch.Generator().manual_seed(seed)
    return [
        [
            {dim: torch.randperm(shape[dim], generator=generator)[: (shape[dim] + 1) // 2] for dim in own}
            for shape, own in zip(shapes, dims, strict=True)
        ]
        for _ in range(steps)
    ]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "all_settings"])
def test_equals_pyros_with_minibatches(settings, dtype):
    shapes = [(20,), (8, 3), (3, 8), (6, 5), (4,), (2, 3)]
    batches = minibatches(shapes, 300, [(-1,), (-2,), (-1,), (-2, -1), (), ()])
    ours, theirs = ([parameter(shape, dtype) for shape in shapes] for _ in range(2))
    run(DCTAdam(ours, subsample_aware=True, **settings), ours, gradients(shapes, dtype, 300), batches)
    run(PyroDCTAdam(theirs, subsample_aware=True, **settings), theirs, gradients(shapes, dtype, 300), batches)
    close(ours, theirs)


def test_a_minibatch_means_nothing_unless_asked():
    ours, theirs = [parameter((8,))], [parameter((8,))]
    batches = minibatches([(8,)], 20, [(-1,)])
    run(DCTAdam(ours), ours, gradients([(8,)], torch.float64, 20), batches)
    run(PyroDCTAdam(theirs), theirs, gradients([(8,)], torch.float64, 20))
    close(ours, theirs)


# Beyond Pyro's: minibatches of series, full steps between


def lone_pyro(start, stream, seen, dim=None, **settings):
    """Each first entry of ``start`` under a class of Pyro's own, which has a gradient in the steps that see it."""
    ends = []
    for place, value in enumerate(start.detach()):
        param = value.clone().requires_grad_()
        if dim is not None:
            param._pyro_dct_dim = dim
        own = [[gradient[0][place] if mask[place] else None] for gradient, mask in zip(stream, seen, strict=True)]
        [end] = run(PyroDCTAdam([param], **settings), [param], own)
        ends.append(end.detach())
    return torch.stack(ends)


def mixed(size, steps):
    """Minibatches of ``size`` entries, every third step all of them; the indices, and who is seen."""
    batches = [batch if step % 3 else {} for step, [batch] in enumerate(minibatches([(size,)], steps, [(-1,)]))]
    seen = [[not batch or i in batch[-1].tolist() for i in range(size)] for batch in batches]
    return batches, seen


def test_full_steps_and_minibatches_take_turns():
    param, stream = parameter((6,)), list(gradients([(6,)], torch.float64, 60))
    batches, seen = mixed(6, 60)
    expected = lone_pyro(param, stream, seen, lr=0.05)
    run(DCTAdam([param], lr=0.05, subsample_aware=True), [param], stream, [[batch] for batch in batches])
    close([param], [expected])


@pytest.mark.parametrize(("shape", "dim"), [((6, 7), -1), ((6, 7, 2), -2)])
def test_series_outside_the_minibatch_wait(shape, dim):
    """A plate over series and another dimension of time: each series is one of Pyro's own."""
    param, stream = parameter(shape, dim=dim), list(gradients([shape], torch.float64, 60))
    batches, seen = mixed(6, 60)
    expected = lone_pyro(param, stream, seen, dim=dim, lr=0.05)
    along = [[{-len(shape): batch[-1]} if batch else {}] for batch in batches]
    run(DCTAdam([param], lr=0.05, subsample_aware=True), [param], stream, along)
    close([param], [expected])


def test_a_minibatch_of_times():
    """Times in it learn by themselves, every frequency learns in every step."""
    T, N, lr, beta1, beta2, eps = 7, 8, 0.05, 0.9, 0.999, 1e-8
    param, stream = parameter((T,), dim=-1), list(gradients([(T,)], torch.float64, 30))
    batches, seen = mixed(T, 30)
    value = param.detach().clone()
    m, v, count = (torch.zeros(T, dtype=torch.float64) for _ in range(3))
    M, V = (torch.zeros(N, dtype=torch.float64) for _ in range(2))
    for step, ([gradient], mask) in enumerate(zip(stream, seen, strict=True), start=1):
        gradient = gradient.clamp(-10, 10)
        for i in range(T):
            if mask[i]:
                count[i] += 1
                m[i] = beta1 * m[i] + (1 - beta1) * gradient[i]
                v[i] = beta2 * v[i] + (1 - beta2) * gradient[i] ** 2
                size = lr * (1 - beta2 ** count[i]).sqrt() / (1 - beta1 ** count[i])
                value[i] -= size * m[i] / (v[i].sqrt() + eps)
        wave = dct(torch.cat([gradient, gradient.new_zeros(N - T)]))
        M, V = beta1 * M + (1 - beta1) * wave, beta2 * V + (1 - beta2) * wave**2
        value -= lr * math.sqrt(1 - beta2**step) / (1 - beta1**step) * idct(M / (V.sqrt() + eps))[:T]
    run(DCTAdam([param], lr=lr, subsample_aware=True), [param], stream, [[batch] for batch in batches])
    close([param], [value])


def test_a_minibatch_of_a_dimension_that_is_not_there_is_none():
    """Constraints can have fewer unconstrained dimensions: Pyro's own would never update such a parameter."""
    ours, theirs = [parameter((4,))], [parameter((4,))]
    stream = list(gradients([(4,)], torch.float64, 20))
    run(DCTAdam(ours, subsample_aware=True), ours, stream, [[{-3: torch.tensor([0])}]] * 20)
    run(PyroDCTAdam(theirs), theirs, stream)
    close(ours, theirs)


# Frequencies


@pytest.mark.parametrize(("scale", "power"), [(1.0, 1.0), (2.5, 2.0), (3.0, -0.5)])
def test_each_frequency_has_its_own_rate(scale, power):
    T, lr, beta1, beta2, eps = 8, 0.05, 0.9, 0.999, 1e-8
    n = torch.arange(T, dtype=torch.float64)
    basis = math.sqrt(2 / T) * torch.cos(math.pi / T * n[:, None] * (n + 0.5))
    basis[0] /= math.sqrt(2)
    weight = torch.tensor([(1 + k / scale) ** -power for k in range(T)], dtype=torch.float64)
    param, stream = parameter((T,), dim=-1), list(gradients([(T,)], torch.float64, 20))
    value = param.detach().clone()
    m, v, M, V = (torch.zeros(T, dtype=torch.float64) for _ in range(4))
    for step, [gradient] in enumerate(stream, start=1):
        gradient = gradient.clamp(-10, 10)
        m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
        wave = basis @ gradient
        M, V = beta1 * M + (1 - beta1) * wave, beta2 * V + (1 - beta2) * wave**2
        size = lr * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        value -= size * (m / (v.sqrt() + eps) + basis.T @ (weight * M / (V.sqrt() + eps)))
    run(DCTAdam([param], lr=lr, frequency_scale=scale, frequency_power=power), [param], stream)
    close([param], [value])


# Which dimension is time


def end(names_and_params, **settings):
    params = [param for _, param in names_and_params]
    shapes = [param.shape for param in params]
    run(DCTAdam(names_and_params, **settings), params, gradients(shapes, torch.float64, 10))
    return params


def test_a_name_is_as_good_as_the_attribute():
    names = ["drift_loc", "drift_scale", "level"]
    named = [(name, parameter((5, 7), seed=seed)) for seed, name in enumerate(names)]
    marked = [parameter((5, 7), dim=dim, seed=seed) for seed, dim in enumerate([-1, -2, None])]
    run(PyroDCTAdam(marked), marked, gradients([(5, 7)] * 3, torch.float64, 10))
    close(end(named, time_dims={"drift_loc": -1, "drift*": -2}), marked)


def test_the_configuration_wins_over_the_attribute():
    [ours] = end([("drift", parameter((5, 7), dim=-1))], time_dims={"dri*": -2})
    [theirs] = end([("other", parameter((5, 7), dim=-2))], time_dims={"dri*": -1})
    assert torch.equal(ours, theirs)


def test_without_names_only_the_attribute_counts():
    ours, theirs = ([parameter((5, 7), dim=-1)] for _ in range(2))
    run(DCTAdam(ours, time_dims={"drift": -2}), ours, gradients([(5, 7)], torch.float64, 10))
    run(PyroDCTAdam(theirs), theirs, gradients([(5, 7)], torch.float64, 10))
    close(ours, theirs)


@pytest.mark.parametrize(
    ("param", "settings", "message"),
    [
        (
            parameter((5,)),
            {"time_dims": {"dri*": -2}},
            r"time_dims.dri\* = -2: drift is .* of shape \(5,\), which has no",
        ),
        (parameter(()), {"time_dims": {"drift": -1}}, r"time_dims.drift = -1: drift is .* of shape \(\), which has no"),
        (parameter((5,), dim=-2), {}, r"_pyro_dct_dim = -2: drift is .* of shape \(5,\), which has no"),
        (parameter((5,), dim=0), {}, r"_pyro_dct_dim = 0: drift is .* of shape \(5,\), which has no"),
        (parameter((5,), torch.complex64), {"time_dims": {"drift": -1}}, "drift is a complex parameter"),
    ],
)
def test_a_dimension_that_is_not_there_is_an_error_that_names_it(param, settings, message):
    param.grad = torch.ones_like(param)
    before = param.detach().clone()
    with pytest.raises(sweepvi.ConfigError, match=message):
        DCTAdam([("drift", param)], **settings).step()
    assert torch.equal(param, before)


def test_time_dimensions_are_checked_before_the_first_step():
    rule = DCTAdamRule(time_dims={"drift_a": -1, "dri*": -2, "levle": -1})
    shapes = {"drift_a": torch.Size((3,)), "drift_b": torch.Size((4,)), "level": torch.Size(())}
    assert rule.misfits(shapes) == {
        "time_dims.dri*": "is -2, a dimension that some parameters do not have: drift_b of shape (4,)",
        "time_dims.levle": "no such parameter; did you mean level? valid: drift_a, drift_b, level",
    }
    assert rule.misfits({"drift_a": torch.Size((3,)), "drift": torch.Size((3, 4)), "levle": torch.Size((2,))}) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time_dims": {"drift": 1}}, "time_dims = .*: must be a mapping from name to a whole number < 0"),
        ({"time_dims": -1}, "time_dims = -1: must be"),
        ({"frequency_scale": 0}, "frequency_scale = 0: must be a number > 0"),
    ],
)
def test_out_of_range_is_a_value_error(settings, message):
    with pytest.raises(ValueError, match=message):
        DCTAdamRule(**settings)


# As the framework runs it


def test_many_parameters_of_one_shape_are_as_each_alone():
    stream = list(gradients([(7,)] * 4 + [(3,)], torch.float64, 20, missing=True))
    together = [parameter((7,), dim=-1, seed=seed) for seed in range(4)] + [parameter((3,))]
    apart = [parameter((7,), dim=-1, seed=seed) for seed in range(4)] + [parameter((3,))]
    run(DCTAdam(together), together, stream)
    for place, param in enumerate(apart):
        run(DCTAdam([param]), [param], [[gradient[place]] for gradient in stream])
    close(together, apart)


@pytest.mark.parametrize("dim", [None, -1])
def test_a_minibatch_of_one_parameter_is_nothing_to_another(dim):
    """With one count for all its elements, a parameter has its step size in full precision, as in Pyro's."""
    ours = [parameter((4, 7), torch.float32, dim, seed) for seed in range(2)]
    theirs = [parameter((4, 7), torch.float32, dim, seed=1)]
    stream = list(gradients([(4, 7)] * 2, torch.float32, 50))
    batches = minibatches([(4, 7)] * 2, 50, [(-2,), ()])
    run(DCTAdam(ours, lr=1.0, subsample_aware=True), ours, stream, batches)
    run(PyroDCTAdam(theirs, lr=1.0), theirs, [[gradient[1]] for gradient in stream])
    close(ours[1:], theirs)


def test_a_series_of_length_zero_is_left_as_it_is():
    run(DCTAdam([empty := parameter((3, 0), dim=-1)]), [empty], gradients([(3, 0)], torch.float64, 2))
    assert empty.shape == (3, 0)


@pytest.mark.parametrize("subsample_aware", [False, True])
@pytest.mark.parametrize(("shape", "dim"), [((10, 7), -1), ((10, 7, 3), -2), ((7, 10), -2), ((7, 2, 10), -3)])
def test_block_by_block_is_as_whole(monkeypatch, shape, dim, subsample_aware):
    whole, cut = (parameter(shape, dim=dim) for _ in range(2))
    stream, batches = list(gradients([shape], torch.float64, 20)), minibatches([shape], 20, [(-len(shape),)])
    settings = {"subsample_aware": subsample_aware, "frequency_power": 1.0}
    run(DCTAdam([whole], **settings), [whole], stream, batches)
    monkeypatch.setattr(dct_adam, "BLOCK", 50)
    run(DCTAdam([cut], **settings), [cut], stream, batches)
    assert torch.equal(whole, cut)


@pytest.mark.parametrize("block", [dct_adam.BLOCK, 14])
@pytest.mark.parametrize("subsample_aware", [False, True])
@pytest.mark.parametrize("K", [1, 3])
def test_lanes_equal_lone_runs(monkeypatch, K, subsample_aware, block):
    monkeypatch.setattr(dct_adam, "BLOCK", block)
    shapes = {"drift": torch.Size((4, 7)), "level": torch.Size((3,)), "slow": torch.Size((5, 2)), "all": torch.Size(())}
    settings = {"time_dims": {"drift": -1, "slow": -2}, "subsample_aware": subsample_aware}
    lanes = {
        "lr": torch.tensor([0.01, 0.1, 0.5], dtype=torch.float64)[:K],
        "lrd": torch.tensor([1.0, 0.9, 0.99], dtype=torch.float64)[:K],
        "frequency_scale": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)[:K],
        "frequency_power": torch.tensor([0.0, 1.0, -0.5], dtype=torch.float64)[:K],
    }
    betas = [(0.9, 0.999), (0.8, 0.9), (0.0, 0.99)][:K]
    D = sum(map(math.prod, shapes.values()))
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(K, D, generator=generator, dtype=torch.float64)
    stream = torch.randn(20, K, D, generator=generator, dtype=torch.float64) * 10

    rule = DCTAdamRule(**settings)
    hyper = rule.hyper() | {key: value[:, None] for key, value in lanes.items()}
    hyper["betas"] = tuple(torch.tensor(beta, dtype=torch.float64)[:, None] for beta in zip(*betas, strict=True))
    arena, together = Arena(rule, shapes), start
    slots = arena.init(start, hyper)
    for step, gradient in enumerate(stream, start=1):
        together, slots = arena.update(gradient, together, slots, hyper, step)

    sizes = list(map(math.prod, shapes.values()))
    for k in range(K):
        pieces = start[k].split(sizes)
        named = [(n, p.reshape(s).clone().requires_grad_()) for (n, s), p in zip(shapes.items(), pieces, strict=True)]
        own = {key: float(value[k]) for key, value in lanes.items()}
        lone = DCTAdam(named, betas=betas[k], **own, **settings)
        split = [[g.reshape(s) for g, s in zip(row[k].split(sizes), shapes.values(), strict=True)] for row in stream]
        params = run(lone, [param for _, param in named], split)
        close([together[k]], [torch.cat([param.reshape(-1) for param in params])])


@pytest.mark.parametrize("subsample_aware", [False, True])
def test_state_dict_resumes_in_the_middle(subsample_aware):
    shapes = [(4, 7), (4, 7), (3,), (6, 2)]
    dims, settings = [-1, -1, None, -2], {"subsample_aware": subsample_aware, "frequency_power": 1.0}
    batches = minibatches(shapes, 40, [(-2,), (), (-1,), ()])
    stream = list(gradients(shapes, torch.float64, 40, missing=True))
    whole, parts = (
        [parameter(shape, dim=dim, seed=seed) for seed, (shape, dim) in enumerate(zip(shapes, dims, strict=True))]
        for _ in range(2)
    )
    run(DCTAdam(whole, **settings), whole, stream, batches)
    first, second = DCTAdam(parts, **settings), DCTAdam(parts, **settings)
    run(first, parts, stream[:17], batches[:17])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(second, parts, stream[17:], batches[17:])
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


@pytest.mark.parametrize("subsample_aware", [False, True])
@pytest.mark.parametrize("dim", [None, -1])
def test_changes_neither_inputs_nor_the_gradient(dim, subsample_aware):
    param = parameter((4, 7), dim=dim)
    param.grad, param._pyro_subsample = torch.full_like(param, 100.0), {-2: torch.tensor([1, 2])}
    rule = DCTAdamRule(subsample_aware=subsample_aware).for_parameter("", param)
    hyper = DCTAdamRule().hyper()
    hyper |= {**rule.scalars(hyper, 1), **rule.inputs(param)}
    slots = rule.init(param.detach(), hyper)
    before = copy.deepcopy((param.detach(), slots))
    rule.update(param.grad, param.detach(), slots, hyper)
    assert torch.equal(param, before[0])
    assert all(torch.equal(slots[key], before[1][key]) for key in slots)
    optimizer = DCTAdam([param], lr=0.1, lrd=0.5, subsample_aware=subsample_aware)
    optimizer.step()
    assert torch.equal(param.grad, torch.full_like(param, 100.0))
    assert optimizer.param_groups[0]["lr"] == 0.1


# Models


TRUTH = torch.linspace(-2, 2, 6)[:, None] * torch.cos(torch.linspace(0, 3, 9))


def drifting(y):
    """Six series of length nine, of which a step sees two."""
    with pyro.plate("series", 6, subsample_size=2, dim=-1):
        batch = pyro.subsample(y, event_dim=1)
        z = pyro.sample("z", dist.Normal(torch.zeros(2, 9, dtype=y.dtype), 10.0).to_event(1))
        pyro.sample("y", dist.Normal(z, 0.1).to_event(1), obs=batch)


def drifting_guide(y):
    with pyro.plate("series", 6, subsample_size=2, dim=-1):
        loc = pyro.param("loc", lambda: torch.zeros(6, 9, dtype=y.dtype), event_dim=1)
        pyro.sample("z", dist.Normal(loc, 0.1).to_event(1))


def test_a_subsampled_model_in_pyros_own_svi():
    """Only a minibatch's rows move, and each by time and frequency."""
    settings = {"lr": 0.05, "subsample_aware": True}

    def guide(y):
        drifting_guide(y)
        pyro.param("loc").unconstrained()._pyro_dct_dim = -1

    pyro.set_rng_seed(0)
    svi = pyro.infer.SVI(drifting, guide, pyro.optim.PyroOptim(DCTAdam, settings), pyro.infer.Trace_ELBO())
    before = torch.zeros(6, 9)
    for step in range(300):
        svi.step(TRUTH)
        loc = pyro.param("loc")
        if step < 5:
            moved = (loc.detach() != before).all(-1).nonzero().flatten().tolist()
            assert moved == sorted(loc.unconstrained()._pyro_subsample[-2].tolist())
            assert (loc.detach() != before).any(-1).sum() == 2
        before = loc.detach().clone()
    assert (before - TRUTH).abs().max() < 0.5
    pyro.clear_param_store()


def test_a_subsampled_model_by_the_name_of_its_parameter():
    optimizer = {"name": "dct_adam", "lr": 0.05, "subsample_aware": True, "time_dims": {"lo*": -1}}
    result = sweepvi.fit(drifting, (TRUTH,), guide=drifting_guide, optimizer=optimizer, steps=300)
    assert result.status == "finished"
    assert (result.params["loc"] - TRUTH).abs().max() < 0.5
    with pytest.raises(sweepvi.ConfigError, match=r"optimizer.time_dims.lco: no such parameter; did you mean loc"):
        sweepvi.fit(drifting, (TRUTH,), guide=drifting_guide, optimizer={**optimizer, "time_dims": {"lco": -1}})
