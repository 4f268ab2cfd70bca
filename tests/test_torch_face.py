"""The ``torch.optim.Optimizer`` made from a rule, as a torch optimizer: groups, clipping, copies, compiling."""

from __future__ import annotations

import copy
import pickle

import pyro
import pytest
import torch
from optimizer_references import F32, F64, FIRST, close, parameters, rows_with, run, stream

from sweepvi import optim
from sweepvi.optim import torch_face
from sweepvi.optim.clip import clipped
from sweepvi.optim.torch_face import optimizer_from

every_optimizer = pytest.mark.parametrize("row", FIRST, ids=str)
GRADIENTS = [[g / g.norm() * 10.0**size for g in map(torch.ones, ((3,), (2, 4)))] for size in (-2, 1, 0, -1, 2, 0)]


def by_hand(clip):
    """Adam on gradients clipped with torch's own functions, both parameters together."""
    params = parameters(F32, ((3,), (2, 4)))
    adam = torch.optim.Adam(params, 0.1)
    for gradients in GRADIENTS:
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = gradient.clone()
        if "global_norm" in clip:
            torch.nn.utils.clip_grad_norm_(params, clip["global_norm"])
        for param in params if "norm" in clip else ():
            torch.nn.utils.clip_grad_norm_(param, clip["norm"])
        if "value" in clip:
            torch.nn.utils.clip_grad_value_(params, clip["value"])
        adam.step()
    return params


@pytest.mark.parametrize("grouped", [False, True], ids=["one_group", "two_groups"])
@pytest.mark.parametrize(
    "clip",
    [{"value": 0.1}, {"norm": 0.5}, {"global_norm": 0.5}, {"value": 0.2, "norm": 0.5, "global_norm": 0.6}],
    ids="-".join,
)
def test_clipping_is_torchs_own(clip, grouped):
    params = parameters(F32, ((3,), (2, 4)))
    groups = [{"params": [param]} for param in params] if grouped else params
    run(optim.Adam(groups, lr=0.1, clip=clip), params, GRADIENTS)
    # torch adds 1e-6 to the norms that it divides by.
    close(params, by_hand(clip), 2e-5)


def test_a_norm_too_large_for_float32_is_clipped_all_the_same():
    for kind in ("norm", "global_norm"):
        params = parameters(F32, ((3,), (2, 4)))
        before = [param.detach().clone() for param in params]
        run(optim.SGD(params, lr=1.0, clip={kind: 1.0}), params, [[torch.full(p.shape, 1e30) for p in params]])
        sizes = [float((old - new.detach()).norm()) for old, new in zip(before, params, strict=True)]
        total = sum(size**2 for size in sizes) ** 0.5 if kind == "global_norm" else sizes
        assert total == pytest.approx(1.0 if kind == "global_norm" else [1.0, 1.0], rel=1e-5)
        lanes = clipped(torch.full((2, 3), 1e30), {kind: torch.tensor([[1.0], [2.0]], dtype=F64)}, [3])
        torch.testing.assert_close(lanes.norm(dim=1), torch.tensor([1.0, 2.0]))


@every_optimizer
def test_maximize_follows_the_gradient(row):
    ours, theirs = parameters(F32, row.shapes), parameters(F32, row.shapes)
    gradients = stream(F32, 10, row.shapes)
    run(optimizer_from(row.rule(), theirs), theirs, [[-gradient for gradient in step] for step in gradients])
    optimizer = optimizer_from(row.rule(), [{"params": ours, "maximize": True}])
    run(optimizer, ours, gradients)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("row", rows_with("added", FIRST), ids=str)
def test_groups_and_one_added_later(row):
    rate = row.rule().rate
    gradients = stream(F64, 20, row.shapes)

    def trajectory(make, key):
        params = parameters(F64, row.shapes)
        optimizer = make([{"params": params[:1]}])
        run(optimizer, params[:1], [step[:1] for step in gradients[:5]])
        optimizer.add_param_group({"params": params[1:], key: 0.5})
        run(optimizer, params, gradients[5:])
        return params

    settings = {key: value for key, value in row.settings.items() if key != "lrd"}
    ours = trajectory(lambda groups: optimizer_from(row.rule(**settings), groups), rate)
    close(ours, trajectory(lambda groups: row.reference(groups, **settings), rate), row.f32)


@every_optimizer
def test_parameters_may_have_names(row):
    plain, named = parameters(F32, row.shapes), parameters(F32, row.shapes)
    gradients = stream(F32, 5, row.shapes)
    run(optimizer_from(row.rule(), plain), plain, gradients)
    names = [f"p{place}" for place in range(len(named))]
    optimizer = optimizer_from(row.rule(), zip(names, named, strict=True))
    run(optimizer, named, gradients)
    assert all(torch.equal(one, other) for one, other in zip(plain, named, strict=True))
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == names


@every_optimizer
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"])
def test_a_copy_of_the_optimizer_goes_on_alike_and_apart(row, copied):
    params = parameters(F32, row.shapes)
    gradients = stream(F32, 20, row.shapes)
    first = optimizer_from(row.rule(), params)
    run(first, params, gradients[:10])
    second = copied(first)
    [group] = second.param_groups
    for optimizer, own in ((first, params), (second, group["params"])):
        run(optimizer, own, gradients[10:])
    assert all(torch.equal(one, other) and one is not other for one, other in zip(params, group["params"], strict=True))


@every_optimizer
def test_the_step_size_may_be_a_tensor(row):
    plain, tensor = parameters(F32, row.shapes), parameters(F32, row.shapes)
    gradients = stream(F32, 10, row.shapes)
    key, kind = row.rule().rate, type(optimizer_from(row.rule(), plain))
    settings = {name: value for name, value in row.settings.items() if name != key}
    rate = torch.tensor(0.05)
    run(kind(plain, **settings, **{key: float(rate)}), plain, gradients)
    run(kind(tensor, **settings, **{key: rate}), tensor, gradients)
    assert all(torch.equal(one, other) for one, other in zip(plain, tensor, strict=True))


def test_a_step_size_that_a_schedule_brought_to_zero_is_loaded():
    [param] = parameters(F32, ((3,),))
    first, second = optim.Adam([param], lr=0.1), optim.Adam([param], lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(first, lambda step: float(step < 3))
    run(first, [param], [[torch.ones(3)]] * 4, scheduler.step)
    second.load_state_dict(first.state_dict())
    assert second.param_groups[0]["lr"] == 0.0
    before = param.detach().clone()
    run(second, [param], [[torch.ones(3)]])
    assert torch.equal(param, before)


def test_a_saved_state_counts_for_each_parameter_by_itself():
    params = parameters(F32, ((3,), (2, 4)))
    optimizer = optim.Adam(params)
    run(optimizer, params, GRADIENTS)
    one, other = optimizer.state_dict()["state"].values()
    one["step"] += 1
    assert other["step"] == optimizer.state[params[0]]["step"] == len(GRADIENTS)


@pytest.mark.parametrize("steps_before", [0, 2])
@pytest.mark.parametrize("shapes", [((3,),), ((3,), (2, 4))], ids=str)
def test_sparse_gradients_are_refused(shapes, steps_before):
    params = parameters(F32, shapes)
    optimizer = optim.Adam(params)
    run(optimizer, params, [[torch.ones(shape) for shape in shapes]] * steps_before)
    for param in params:
        param.grad = None
        param.grad = torch.ones(param.shape).to_sparse()
    with pytest.raises(RuntimeError, match="Adam does not take sparse gradients"):
        optimizer.step()


def test_works_in_pyros_own_svi():
    def model():
        pyro.sample("x", pyro.distributions.Normal(3.0, 1.0))

    def guide():
        pyro.sample("x", pyro.distributions.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    pyro.set_rng_seed(0)
    svi = pyro.infer.SVI(model, guide, pyro.optim.PyroOptim(optim.ClippedAdam, {"lr": 0.1}), pyro.infer.Trace_ELBO())
    for _ in range(150):
        svi.step()
    assert abs(pyro.param("loc").item() - 3.0) < 0.3
    pyro.clear_param_store()


def test_works_under_a_torch_scheduler_with_groups():
    one, two = (torch.zeros(2, requires_grad=True) for _ in range(2))
    optimizer = optim.Adam([{"params": [one]}, {"params": [two], "lr": 0.5}], lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1)
    run(optimizer, [one, two], [[torch.ones(2)] * 2] * 2, scheduler.step)
    torch.testing.assert_close(one, torch.full((2,), -0.11))
    torch.testing.assert_close(two, torch.full((2,), -0.55))


@every_optimizer
def test_loading_adds_nothing_to_the_groups(row):
    optimizer = optimizer_from(row.rule(), parameters(F32, row.shapes))
    before = set(optimizer.param_groups[0])
    optimizer.load_state_dict(optimizer.state_dict())
    assert set(copy.deepcopy(optimizer).param_groups[0]) == set(optimizer.param_groups[0]) == before


def test_hooks_may_put_anything_into_the_state():
    optimizer = optim.Adam(parameters(F32))
    optimizer.register_state_dict_pre_hook(lambda optimizer: optimizer.state.update(note=1))
    assert optimizer.state_dict()["state"]["note"] == 1


@pytest.mark.parametrize("frozen", [0, 0.0, torch.tensor(0.0)], ids=str)
@pytest.mark.parametrize("kind", [optim.Adam, optim.Muon, optim.SGD])
def test_a_step_size_of_zero_freezes_a_group(kind, frozen):
    still, moving = parameters(F32, ((2, 4), (2, 4)))
    before = still.detach().clone()
    optimizer = kind([{"params": [still], "lr": frozen}, {"params": [moving]}], lr=0.1)
    run(optimizer, [still, moving], [[torch.ones(2, 4)] * 2] * 3)
    assert torch.equal(still, before)
    assert not torch.equal(moving, before)
    assert optimizer.state[still]["step"] == 3
    with pytest.raises(ValueError, match=r"lr = -0\.1: must be a number > 0"):
        kind([still], lr=-0.1)


def test_a_group_may_thaw_where_the_default_is_zero():
    first, second = parameters(F32, ((3,), (3,)))
    before = second.detach().clone()
    run(
        optim.Adam([{"params": [first], "lr": 0.1}, {"params": [second]}], lr=0.0),
        [first, second],
        [[torch.ones(3)] * 2],
    )
    assert torch.equal(second, before)
    assert not torch.equal(first, before)


def test_a_hyperparameter_is_one_number():
    with pytest.raises(ValueError, match=r"lr: must be one number, not a tensor of shape \(2,\)"):
        optim.SGD(parameters(F32), lr=torch.tensor([0.1, 0.2]))


def test_rprops_steps_may_shrink_to_nothing():
    (param,) = parameters(F32, ((3,),))
    before = param.detach().clone()
    run(optim.Rprop([param], lr=1e-28, step_sizes=(0, 50)), [param], [[torch.ones(3)]] * 3)
    torch.testing.assert_close(param.detach(), before)


def test_a_copy_of_a_compiled_optimizer_is_compiled(monkeypatch):
    made = []
    monkeypatch.setattr(torch_face, "compiled", lambda: made.append(1) or torch_face.advance)
    optimizer = optim.Adam(parameters(F32), compile=True)
    copy.deepcopy(optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    assert len(made) >= 3


@pytest.mark.long
def test_compiled_equals_uncompiled():
    """Also through a copy, and past the step at which RAdam changes its kind of step."""
    plain, fused = parameters(F32, ((3,), (2, 4))), parameters(F32, ((3,), (2, 4)))
    run(optim.RAdam(plain, lr=0.1), plain, GRADIENTS * 2)
    optimizer = optim.RAdam(fused, lr=0.1, compile=True)
    run(optimizer, fused, GRADIENTS)
    optimizer = copy.deepcopy(optimizer)
    fused = optimizer.param_groups[0]["params"]
    run(optimizer, fused, GRADIENTS)
    close(fused, plain, 1e-6)


@pytest.fixture
def validation_stays():
    """torch's first compilation turns it off."""
    before = torch.distributions.Distribution._validate_args
    yield
    torch.distributions.Distribution.set_default_validate_args(before)


@pytest.mark.parametrize("kind", [optim.ClippedAdam, optim.Adafactor])
def test_step_may_be_compiled(kind, validation_stays):
    plain, traced = parameters(F32, ((3,), (2, 4))), parameters(F32, ((3,), (2, 4)))
    run(kind(plain), plain, GRADIENTS)
    optimizer = kind(traced)
    optimizer.step = torch.compile(optimizer.step, backend="eager")
    run(optimizer, traced, GRADIENTS)
    close(traced, plain, 1e-6)


def test_inside_the_result_is_the_result():
    """Asked for again, it is where the parameters are."""
    params = parameters(F32, ((3,),))
    optimizer = optim.ScheduleFreeAdam(params, lr=0.1)
    run(optimizer, params, [[torch.full((3,), float(k))] for k in range(1, 6)])
    stands = params[0].detach().clone()
    with optimizer.evaluated():
        outer = params[0].detach().clone()
        with optimizer.evaluated():
            assert torch.equal(params[0], outer)
        assert torch.equal(params[0], outer)
    assert torch.equal(params[0], stands)
    assert not torch.equal(outer, stands)


def test_a_group_that_is_added_goes_by_the_clock_of_the_others():
    first, second = parameters(F32, ((3,), (3,)))
    optimizer = optim.ClippedAdam([first], lr=0.1, lrd=0.5)
    run(optimizer, [first], [[torch.ones(3)]] * 3)
    optimizer.add_param_group({"params": [second]})
    before = second.detach().clone()
    run(optimizer, [first, second], [[torch.ones(3)] * 2])
    torch.testing.assert_close(before - second, torch.full((3,), 0.1 * 0.5**4))
