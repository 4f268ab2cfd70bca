"""Every update rule, held to the same contract. A new optimizer adds a row to ``optimizer_references``."""

from __future__ import annotations

import copy
import dataclasses
import io

import pytest
import torch
from optimizer_references import (
    F32,
    F64,
    FIRST,
    REFERENCES,
    close,
    numbers_as,
    parameters,
    rows_with,
    run,
    stream,
)

from sweepvi import optim, registry
from sweepvi.keys import keys_of
from sweepvi.optim.arena import Arena
from sweepvi.optim.torch_face import optimizer_from

every_row = pytest.mark.parametrize("row", REFERENCES, ids=str)
every_optimizer = pytest.mark.parametrize("row", FIRST, ids=str)
both_types = pytest.mark.parametrize("dtype", [F32, F64], ids=str)


def test_every_registered_optimizer_has_a_reference():
    rules = {row.name for row in registry.rows("optimizer") if issubclass(row.component(), optim.Rule)}
    assert {row.name for row in REFERENCES} == rules


@both_types
@pytest.mark.parametrize("missing", [False, True], ids=["all", "some_missing"])
@every_row
def test_equals_the_reference(row, missing, dtype):
    ours, theirs = parameters(dtype, row.shapes), parameters(dtype, row.shapes)
    gradients = stream(dtype, 300, row.shapes, missing)
    run(optimizer_from(row.rule(), ours), ours, gradients)
    points = []
    with numbers_as(dtype):
        run(row.theirs(theirs), theirs, gradients, lambda: points.append([param.detach().clone() for param in theirs]))
    close(ours, theirs, row.tolerance(dtype), [torch.stack(path) for path in zip(*points, strict=True)])


@both_types
@pytest.mark.parametrize("row", [row for row in REFERENCES if row.exact], ids=str)
def test_one_parameter_equals_the_reference_to_the_last_bit(row, dtype):
    for shape in row.shapes:
        (ours,), (theirs,) = parameters(dtype, [shape]), parameters(dtype, [shape])
        gradients = stream(dtype, 40, (shape,))
        run(optimizer_from(row.rule(), [ours]), [ours], gradients)
        with numbers_as(dtype):
            run(row.theirs([theirs]), [theirs], gradients)
        assert torch.equal(ours, theirs)


def lanes_of(rule, lanes):
    """Hyperparameters that differ from lane to lane, wherever they can: as tensors, and each lane's rule."""
    factors = torch.linspace(0.5, 1.0, lanes, dtype=F64).reshape(lanes, 1)
    hyper, each = rule.hyper(), [{} for _ in range(lanes)]
    for spec in keys_of(type(rule)):
        value = getattr(rule, spec.name)
        if spec.name == "betas":
            hyper["betas"] = tuple(beta * factors for beta in value)
            own = [tuple(float(beta[lane]) for beta in hyper["betas"]) for lane in range(lanes)]
        elif isinstance(value, float) and value and spec.key.admits(value / 2):
            hyper[spec.name] = value * factors
            own = [float(hyper[spec.name][lane]) for lane in range(lanes)]
        elif spec.name == "clip":
            hyper["clip"] = {kind: bound * factors for kind, bound in value.bounds().items()}
            own = [{kind: float(b[lane]) for kind, b in hyper["clip"].items()} for lane in range(lanes)]
        else:
            continue
        each = [{**rest, spec.name: mine} for rest, mine in zip(each, own, strict=True)]
    return hyper, each


def arena_run(rule, hyper, shapes, start, gradients, save_at=None, step_of=lambda step: step):
    named = {f"p{place}": torch.Size(shape) for place, shape in enumerate(shapes)}
    arena = Arena(rule, named)
    slots = arena.init(start, hyper)
    for step, gradient in enumerate(gradients, start=1):
        start, slots = arena.update(gradient, start, slots, hyper, step_of(step))
        if step == save_at:
            file = io.BytesIO()
            torch.save(slots, file)
            file.seek(0)
            arena, slots = Arena(rule, named), torch.load(file, weights_only=True)
    return start


def arena_data(row, lanes, dtype, steps):
    size = sum(torch.Size(shape).numel() for shape in row.shapes)
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(steps + 1, lanes, size, generator=generator, dtype=F64).to(dtype)
    return draws[0], draws[1:]


def assert_lanes_equal_lone_runs(row, rule, lanes, dtype, step_of=lambda step: step):
    start, gradients = arena_data(row, lanes, dtype, 8)
    hyper, each = lanes_of(rule, lanes)
    together = arena_run(rule, hyper, row.shapes, start, gradients, step_of=step_of)
    assert together.dtype == dtype
    sizes = [torch.Size(shape).numel() for shape in row.shapes]

    def parts(flat):
        return [part.reshape(shape).clone() for part, shape in zip(flat.split(sizes), row.shapes, strict=True)]

    for lane in range(lanes):
        params = [part.requires_grad_() for part in parts(start[lane])]
        lone = optimizer_from(dataclasses.replace(rule, **each[lane]), params)
        run(lone, params, [parts(gradient[lane]) for gradient in gradients])
        close(parts(together[lane]), params, row.lanes if dtype == F32 else 1e-12)


@both_types
@pytest.mark.parametrize(
    ("row", "lanes"),
    [(row, lanes) for row in REFERENCES for lanes in (1, 3, 64) if lanes < 64 or row in FIRST],
    ids=str,
)
def test_lanes_equal_lone_runs(row, lanes, dtype):
    """K fits in one arena [K, D], each with hyperparameters of its own, are K fits."""
    # Steps may be tensors too.
    step_of = (lambda step: torch.full((3, 1), float(step), dtype=F64)) if lanes == 3 else (lambda step: step)
    assert_lanes_equal_lone_runs(row, row.rule(), lanes, dtype, step_of)


@pytest.mark.parametrize("clip", [{"value": 0.5}, {"norm": 0.7}, {"global_norm": 1.0}], ids=str)
@every_optimizer
def test_lanes_clip_each_for_itself(row, clip):
    assert_lanes_equal_lone_runs(row, row.rule(clip=clip), 3, F32)


@every_row
def test_an_arena_resumes_in_the_middle(row):
    start, gradients = arena_data(row, 3, F32, 10)
    rule = row.rule()
    hyper, _ = lanes_of(rule, 3)
    whole, parts = (arena_run(rule, hyper, row.shapes, start, gradients, save_at) for save_at in (None, 5))
    assert torch.equal(whole, parts)


@every_row
def test_a_rule_changes_none_of_its_inputs(row):
    rule, param, grad = row.rule(), torch.randn(2, 4), torch.randn(2, 4)
    slots = rule.init(param, rule.hyper())
    given = (param, grad, slots)
    before = copy.deepcopy(given)
    for step in (1, 2, 9):
        rule.update(grad, param, slots, {**rule.hyper(), **rule.scalars(rule.hyper(), step)})
    torch.testing.assert_close(given, before, rtol=0, atol=0)


@every_row
def test_scalars_of_a_tensor_of_steps_are_those_of_each(row):
    rule = row.rule()
    steps = torch.arange(1.0, 13.0, dtype=F64)
    together = rule.scalars(rule.hyper(), steps)
    for step in range(1, 13):
        for name, alone in rule.scalars(rule.hyper(), step).items():
            scalar = together[name]
            mine = scalar[step - 1].item() if isinstance(scalar, torch.Tensor) else scalar
            assert mine == pytest.approx(alone, rel=1e-14)


@every_row
def test_a_rule_has_the_slots_that_it_names_and_says_whether_it_reads_the_parameter(row):
    rule, grad = row.rule(), torch.randn(2, 4)
    hyper = {**rule.hyper(), **rule.scalars(rule.hyper(), 2)}
    slots = rule.init(grad, hyper)
    deltas = []
    for param in (torch.zeros(2, 4), torch.ones(2, 4)):
        delta, new = rule.update(grad, param, slots, hyper)
        assert new.keys() == slots.keys() <= {*rule.slot_names()}
        assert all(new[name].shape == slots[name].shape for name in new)
        deltas.append(delta)
    assert rule.reads_param(hyper) or torch.equal(*deltas)


@pytest.mark.parametrize("missing", [False, True], ids=["all", "some_missing"])
@every_row
def test_state_dict_resumes_in_the_middle(row, missing):
    gradients = stream(F32, 40, row.shapes, missing)
    whole, parts = parameters(F32, row.shapes), parameters(F32, row.shapes)
    run(optimizer_from(row.rule(), whole), whole, gradients)
    first, second = (optimizer_from(row.rule(), parts) for _ in range(2))
    run(first, parts, gradients[:17])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    run(second, parts, gradients[17:])
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


@every_optimizer
@pytest.mark.parametrize("clip", ["global_norm", "norm", "value"])
def test_the_callers_gradient_and_rate_stay(row, clip):
    for shapes in (row.shapes, row.shapes[1:2]):
        params = parameters(F32, shapes)
        optimizer = optimizer_from(row.rule(clip={clip: 1e-3}), params)
        rate = optimizer.param_groups[0]["lr"]
        [gradients] = stream(F32, 1, shapes)
        run(optimizer, params, [gradients])
        assert all(torch.equal(param.grad, gradient) for param, gradient in zip(params, gradients, strict=True))
        assert optimizer.param_groups[0]["lr"] == rate == getattr(row.rule(), row.rule().rate)


@pytest.mark.parametrize("row", rows_with("scheduled"), ids=str)
def test_a_scheduler_of_torch_does_what_it_does_to_the_reference(row):
    ours, theirs = parameters(F64, row.shapes), parameters(F64, row.shapes)
    mine = optimizer_from(row.rule(), ours)
    gradients = stream(F64, 40, row.shapes)
    scheduler, rates = torch.optim.lr_scheduler.StepLR(mine, 7, 0.5), []
    run(mine, ours, gradients, lambda: (scheduler.step(), rates.append(mine.param_groups[0]["lr"])))
    with numbers_as(F64):
        other = row.theirs(theirs)
        [group] = other.param_groups
        if "lr" in group:
            schedule = torch.optim.lr_scheduler.StepLR(other, 7, 0.5)
            run(other, theirs, gradients, schedule.step)
        else:
            # Pyro's AdagradRMSProp, which no scheduler knows.
            later = iter(rates)
            run(other, theirs, gradients, lambda: group.update(eta=next(later)))
    close(ours, theirs, row.tolerance(F64))


@pytest.mark.parametrize("row", rows_with("state"), ids=str)
def test_the_references_state_continues_here(row):
    gradients = stream(F64, 40, row.shapes)
    theirs, ours = parameters(F64, row.shapes), parameters(F64, row.shapes)
    with numbers_as(F64):
        other = row.theirs(theirs)
        run(other, theirs, gradients[:17])
    with torch.no_grad():
        for mine, param in zip(ours, theirs, strict=True):
            mine.copy_(param)
    optimizer = optimizer_from(row.rule(), ours)
    optimizer.load_state_dict(copy.deepcopy(other.state_dict()))
    run(optimizer, ours, gradients[17:])
    with numbers_as(F64):
        run(other, theirs, gradients[17:])
    close(ours, theirs, row.tolerance(F64))


@pytest.mark.parametrize("row", rows_with("back"), ids=str)
def test_a_state_from_here_continues_in_the_reference(row):
    gradients = stream(F64, 40, row.shapes)
    theirs, ours = parameters(F64, row.shapes), parameters(F64, row.shapes)
    optimizer = optimizer_from(row.rule(), ours)
    run(optimizer, ours, gradients[:17])
    with torch.no_grad():
        for mine, param in zip(ours, theirs, strict=True):
            param.copy_(mine)
    other = row.theirs(theirs)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(optimizer, ours, gradients[17:])
    run(other, theirs, gradients[17:])
    close(ours, theirs, row.tolerance(F64))


@pytest.mark.parametrize("row", rows_with("complex"), ids=str)
def test_complex_parameters(row):
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(31, 2, 3, generator=generator, dtype=torch.complex128)
    ours, theirs = ([draw.clone().requires_grad_() for draw in draws[0]] for _ in range(2))
    mine = optimizer_from(row.rule(), ours)
    run(mine, ours, draws[1:16])
    with numbers_as(F64):
        other = row.theirs(theirs)
        run(other, theirs, draws[1:16])
        # Theirs is complex, ours pairs of real numbers.
        mine.load_state_dict(copy.deepcopy(other.state_dict()))
        run(other, theirs, draws[16:])
    run(mine, ours, draws[16:])
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_what_is_no_matrix_gets_adamw_from_muon():
    shapes = ((), (3,), (2, 4), (2, 3, 2))
    ours, theirs = parameters(F32, shapes), parameters(F32, shapes)
    # So small that eps matters, which is not Muon's.
    gradients = [[gradient / gradient.norm() * 1e-8 for gradient in step] for step in stream(F32, 40, shapes)]
    run(optim.Muon(ours, lr=0.01, weight_decay=0.3), ours, gradients)
    others = [place for place, shape in enumerate(shapes) if len(shape) != 2]
    rest = [theirs[place] for place in others]
    run(
        torch.optim.AdamW(rest, 0.01, weight_decay=0.3), rest, [[step[place] for place in others] for step in gradients]
    )
    run(torch.optim.Muon([theirs[2]], 0.01, weight_decay=0.3), [theirs[2]], [[step[2]] for step in gradients])
    close(ours, theirs, 2e-5)


def test_parameters_of_equal_shape_run_together():
    for kind in (optim.Muon, optim.Adafactor):
        shapes = ((2, 4),) * 3
        ours, theirs = parameters(F32, shapes), parameters(F32, shapes)
        gradients = stream(F32, 20, shapes)
        run(kind(ours), ours, gradients)
        for place, param in enumerate(theirs):
            run(kind([param]), [param], [[step[place]] for step in gradients])
        close(ours, theirs, 1e-6)


def test_adafactor_refuses_complex_parameters():
    param = torch.zeros(3, dtype=torch.complex64, requires_grad=True)
    param.grad = torch.ones_like(param)
    with pytest.raises(RuntimeError, match="Adafactor does not support complex parameters"):
        optim.Adafactor([param]).step()


def test_asgds_result_is_the_average():
    param = torch.tensor([1.0], requires_grad=True)
    optimizer = optim.ASGD([param], lr=0.1, lambd=0.0, t0=3)
    points = []
    run(optimizer, [param], [[torch.ones(1)]] * 10, lambda: points.append(param.detach().clone()))
    with optimizer.evaluated():
        torch.testing.assert_close(param.detach(), torch.stack(points[4:]).mean(0))
    assert torch.equal(param.detach(), points[-1])


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (optim.ClippedAdam, {"lr": -1}, r"lr = -1: must be a number > 0"),
        (optim.SGD, {"nesterov": True}, "nesterov"),
        (optim.Rprop, {"etas": (1.5, 0.5)}, "etas"),
        (optim.Rprop, {"step_sizes": (1.0, 0.5)}, "step_sizes"),
        (optim.Muon, {"adjust_lr_fn": "mine"}, "adjust_lr_fn"),
    ],
)
def test_out_of_range_is_a_value_error_that_names_the_key(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind([torch.zeros(1, requires_grad=True)], **settings)


def test_a_lane_decays_by_its_own_clock():
    """Steps that were left out count for the decay, not for the averages."""
    arena = Arena(optim.ClippedAdamRule(lr=0.1, lrd=0.5), {"a": torch.Size((2,))})
    start, grad = torch.zeros(3, 2), torch.ones(3, 2)
    hyper = arena.rule.hyper()
    clocks = torch.tensor([[1.0], [2.0], [4.0]], dtype=F64)
    moved, _ = arena.update(grad, start, arena.init(start, hyper), hyper, 1, clocks)
    torch.testing.assert_close(moved, (-0.1 * 0.5**clocks).float().expand(3, 2))
