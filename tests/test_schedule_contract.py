"""Every schedule against torch's class, and over lanes. A new schedule adds a row."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
import yaml
from torch.optim import lr_scheduler as torch_schedules

from sweepvi import config, registry
from sweepvi.errors import ConfigError
from sweepvi.keys import construct
from sweepvi.schedule import Chain, Cosine, Linear, OneCycle, Plateau, Product, Sequential, Warmup

LR, STEPS, PER_EPOCH = 0.3, 1000, 7


def one_cycle(**settings):
    return lambda o: torch_schedules.OneCycleLR(o, max_lr=LR, cycle_momentum=False, **settings)


def cyclic(low, high, *args, **settings):
    return lambda o: torch_schedules.CyclicLR(o, low * LR, high * LR, *args, cycle_momentum=False, **settings)


def warmup(shape):
    share = {"exponential": lambda s: 0.1 ** (1 - s), "cosine": lambda s: 0.1 + 0.45 * (1 - math.cos(math.pi * s))}
    return lambda o: torch_schedules.LambdaLR(o, lambda t: share[shape](min(t / 80, 1)))


def three_parts(o):
    """A warm-up, three waves, and a fall by steps: classes with and without a closed form in torch."""
    parts = [
        torch_schedules.LinearLR(o, 0.1, 1.0, 50),
        torch_schedules.CosineAnnealingWarmRestarts(o, 30, 2, 0.2 * LR),
        torch_schedules.StepLR(o, 100, 0.5),
    ]
    return torch_schedules.SequentialLR(o, parts, [60, 270])


def warm_cosine(o):
    parts = [torch_schedules.LinearLR(o, 0.01, 1.0, 100), torch_schedules.CosineAnnealingLR(o, 700, 0.1 * LR)]
    return torch_schedules.SequentialLR(o, parts, [100])


def chained(o):
    return torch_schedules.ChainedScheduler(
        [
            torch_schedules.ConstantLR(o, 0.5, 10),
            torch_schedules.LinearLR(o, 0.1, 1.0, 50),
            torch_schedules.ExponentialLR(o, 0.99),
            torch_schedules.MultiStepLR(o, [300, 600], 0.5),
        ]
    )


# name, settings, torch's scheduler of an optimizer, and the last time that it can be taken to, if there is one
REFERENCES = [
    ("constant", {}, lambda o: torch_schedules.LambdaLR(o, lambda _: 1.0)),
    ("constant", {"initial_factor": 0.3, "until": 40}, lambda o: torch_schedules.ConstantLR(o, 0.3, 40)),
    ("exponential", {"gamma": 0.997}, lambda o: torch_schedules.ExponentialLR(o, 0.997)),
    ("step", {"every": 30, "gamma": 0.9}, lambda o: torch_schedules.StepLR(o, 30, 0.9)),
    ("step", {"every": 1, "gamma": 1.0}, lambda o: torch_schedules.StepLR(o, 1, 1.0)),
    ("multistep", {"milestones": [], "gamma": 0.3}, lambda o: torch_schedules.MultiStepLR(o, [], 0.3)),
    (
        "multistep",
        {"milestones": [1, 100, 101, 640], "gamma": 0.3},
        lambda o: torch_schedules.MultiStepLR(o, [1, 100, 101, 640], 0.3),
    ),
    (
        "linear",
        {"steps": 600, "initial_factor": 0.2, "final_factor": 0.9},
        lambda o: torch_schedules.LinearLR(o, 0.2, 0.9, 600),
    ),
    ("linear", {"steps": 999}, lambda o: torch_schedules.LinearLR(o, 1.0, 0.0, 999)),
    ("polynomial", {"steps": 600}, lambda o: torch_schedules.PolynomialLR(o, 600, 2.0)),
    ("polynomial", {"steps": 1200, "power": 0.5}, lambda o: torch_schedules.PolynomialLR(o, 1200, 0.5)),
    (
        "inverse_time",
        {"rate": 0.05, "power": 0.6},
        lambda o: torch_schedules.LambdaLR(o, lambda t: (1 + 0.05 * t) ** -0.6),
    ),
    (
        "piecewise",
        {"milestones": [10, 500], "factors": [0.5, 2.0, 0.1]},
        lambda o: torch_schedules.LambdaLR(o, lambda t: 0.5 if t < 10 else 2.0 if t < 500 else 0.1),
    ),
    ("piecewise", {"milestones": [], "factors": [0.5]}, lambda o: torch_schedules.LambdaLR(o, lambda _: 0.5)),
    ("warmup", {"steps": 80, "initial_factor": 0.1}, lambda o: torch_schedules.LinearLR(o, 0.1, 1.0, 80)),
    ("warmup", {"steps": 80, "initial_factor": 0.1, "shape": "exponential"}, warmup("exponential")),
    ("warmup", {"steps": 80, "initial_factor": 0.1, "shape": "cosine"}, warmup("cosine")),
    ("cosine", {"steps": 1000}, lambda o: torch_schedules.CosineAnnealingLR(o, 1000)),
    (
        "cosine",
        {"steps": 130, "final_factor": 0.1},
        lambda o: torch_schedules.CosineAnnealingLR(o, 130, 0.1 * LR),
    ),
    ("cosine_restarts", {"first": 70}, lambda o: torch_schedules.CosineAnnealingWarmRestarts(o, 70)),
    (
        "cosine_restarts",
        {"first": 1, "growth": 2, "final_factor": 0.1},
        lambda o: torch_schedules.CosineAnnealingWarmRestarts(o, 1, 2, 0.1 * LR),
    ),
    (
        "cosine_restarts",
        {"first": 5, "growth": 3},
        lambda o: torch_schedules.CosineAnnealingWarmRestarts(o, 5, 3),
    ),
    ("one_cycle", {"steps": 1000}, one_cycle(total_steps=1000)),
    (
        "one_cycle",
        {"steps": 601, "warm_fraction": 0.21, "shape": "linear", "initial_factor": 0.1, "final_factor": 0.002},
        one_cycle(total_steps=601, pct_start=0.21, anneal_strategy="linear", div_factor=10.0, final_div_factor=50.0),
        600,
    ),
    (
        "one_cycle",
        {"steps": 600, "warm_fraction": 0.37, "initial_factor": 0.1, "final_factor": 0.002, "three_phase": True},
        one_cycle(total_steps=600, pct_start=0.37, div_factor=10.0, final_div_factor=50.0, three_phase=True),
        599,
    ),
    (
        "one_cycle",
        {"steps": 100, "warm_fraction": 0.0, "final_factor": 0.02},
        one_cycle(total_steps=100, pct_start=0.0, final_div_factor=2.0),
        99,
    ),
    ("one_cycle", {"steps": 1}, one_cycle(total_steps=1), 0),
    ("cyclic", {"low_factor": 0.2, "high_factor": 1.5, "up": 30}, cyclic(0.2, 1.5, 30)),
    (
        "cyclic",
        {"low_factor": 0.0, "up": 31, "down": 66, "mode": "triangular2"},
        cyclic(0.0, 1.0, 31, 66, mode="triangular2"),
    ),
    (
        "cyclic",
        {"up": 50, "down": 9, "mode": "exp_range", "gamma": 0.997},
        cyclic(0.1, 1.0, 50, 9, mode="exp_range", gamma=0.997),
    ),
    (
        "sequential",
        {
            "parts": [
                {"name": "warmup", "steps": 50, "initial_factor": 0.1},
                {"name": "cosine_restarts", "first": 30, "growth": 2, "final_factor": 0.2},
                {"name": "step", "every": 100},
            ],
            "milestones": [60, 270],
        },
        three_parts,
    ),
    (
        "sequential",
        {"parts": [{"name": "warmup"}, {"name": "cosine", "steps": 700, "final_factor": 0.1}]},
        warm_cosine,
    ),
    (
        "product",
        {
            "parts": [
                {"name": "constant", "initial_factor": 0.5, "until": 10},
                {"name": "warmup", "steps": 50, "initial_factor": 0.1},
                {"name": "exponential", "gamma": 0.99},
                {"name": "multistep", "milestones": [300, 600], "gamma": 0.5},
            ],
        },
        chained,
    ),
    (
        "torch",
        {"scheduler": "CosineAnnealingLR", "arguments": {"T_max": 130, "eta_min": 0.1}},
        lambda o: torch_schedules.CosineAnnealingLR(o, 130, 0.1 * LR),
    ),
]
ONE_FIT_AT_A_TIME = {"torch"}
WITH_DEFAULTS = [row.name for row in registry.rows("scheduler") if not any(spec.required for spec in row.specs())]

# settings, and torch's arguments
PLATEAUS = [
    ({"patience": 10}, {"factor": 0.5}),
    ({"gamma": 0.9, "patience": 0, "min_factor": 0.2}, {"factor": 0.9, "patience": 0, "min_lr": 0.2 * LR}),
    (
        {"gamma": 0.8, "patience": 3, "threshold": 0.2, "threshold_mode": "abs", "cooldown": 4, "min_factor": 0.0},
        {"factor": 0.8, "patience": 3, "threshold": 0.2, "threshold_mode": "abs", "cooldown": 4},
    ),
    (
        {"gamma": 0.8, "patience": 3, "threshold": 0.05, "cooldown": 2, "min_factor": 0.0},
        {"factor": 0.8, "patience": 3, "threshold": 0.05, "cooldown": 2},
    ),
]
IDS = [f"{row[0]}-{place}" for place, row in enumerate(REFERENCES)]
EPOCHS = {"interval": "epoch", "steps_per_epoch": PER_EPOCH}


def build(name, **settings):
    return registry.build("scheduler", {"name": name, **settings})


def torch_rates(reference, last=STEPS - 1):
    """Torch's step size at every time up to the last that it can be taken to, and that one from there on."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler, rates = reference(optimizer), []
    for time in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        if time < last:
            optimizer.step()
            scheduler.step()
    return rates


def noisy_losses(seed=0, lanes=()):
    """Positive losses that fall, then stay where they are."""
    noise = torch.randn(STEPS, *lanes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    fall = torch.arange(STEPS, dtype=torch.float64).neg().div(100).exp().reshape(-1, *[1] * len(lanes))
    return 20 + 80 * fall + noise


def watched(schedule, losses, step=lambda step: step):
    """The factors at every update of a fit with such losses."""
    state, factors = schedule.init(), []
    for done, loss in enumerate(losses):
        factors.append(torch.as_tensor(schedule.factor(step(done), state), dtype=torch.float64).expand(loss.shape))
        state = schedule.observe(state, step(done), loss)
    return torch.stack(factors)


def watched_state(schedule, losses):
    """The state after a fit with such losses."""
    state = schedule.init()
    for step, loss in enumerate(losses):
        state = schedule.observe(state, step, loss)
    return state


@pytest.mark.parametrize("row", REFERENCES, ids=IDS)
def test_equals_torch_for_a_thousand_steps(row):
    name, settings, *reference = row
    schedule = build(name, **settings)
    for step, rate in enumerate(torch_rates(*reference)):
        assert LR * schedule.factor(step) == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize("row", REFERENCES, ids=IDS)
def test_by_epochs_equals_torch_stepped_once_an_epoch(row):
    name, settings, *reference = row
    schedule = build(name, **settings, **EPOCHS)
    rates = torch_rates(*reference)
    for step in range(STEPS):
        assert LR * schedule.factor(step) == pytest.approx(rates[step // PER_EPOCH], rel=1e-9)


@pytest.mark.parametrize("by", [{}, EPOCHS], ids=["steps", "epochs"])
@pytest.mark.parametrize("row", REFERENCES, ids=IDS)
def test_broadcasts_over_lanes(row, by):
    name, settings, *_ = row
    schedule = build(name, **settings, **by)
    steps = torch.arange(STEPS, dtype=torch.float64)
    lone = [schedule.factor(int(step)) for step in steps]
    assert all(isinstance(factor, float) for factor in lone)
    if name in ONE_FIT_AT_A_TIME:
        with pytest.raises(TypeError, match="one fit at a time"):
            schedule.factor(steps)
        return
    factors = schedule.factor(steps)
    assert isinstance(factors, float) or factors.dtype == torch.float64
    torch.testing.assert_close(
        torch.as_tensor(factors, dtype=torch.float64).expand(STEPS),
        torch.tensor(lone, dtype=torch.float64),
        rtol=1e-12,
        atol=1e-15,
    )


@pytest.mark.parametrize(("settings", "reference"), PLATEAUS)
def test_plateau_equals_torch(settings, reference):
    schedule, losses = build("plateau", **settings), noisy_losses()
    reference = {"min_lr": 0.01 * LR} | reference if "min_factor" not in settings else reference
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler, rates = torch_schedules.ReduceLROnPlateau(optimizer, eps=0, **reference), []
    for loss in losses:
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step(loss)
    assert len(set(rates)) > 3
    torch.testing.assert_close(
        LR * watched(schedule, losses), torch.tensor(rates, dtype=torch.float64), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize(("settings", "reference"), PLATEAUS)
def test_plateau_by_epochs_looks_once_an_epoch_at_the_mean_loss(settings, reference):
    del reference
    losses = noisy_losses()[: STEPS // PER_EPOCH * PER_EPOCH]
    by_epochs = watched(build("plateau", **settings, **EPOCHS), losses)
    means = losses.reshape(-1, PER_EPOCH).mean(1)
    torch.testing.assert_close(
        by_epochs, watched(build("plateau", **settings), means).repeat_interleave(PER_EPOCH), rtol=1e-12, atol=0
    )
    assert by_epochs[-1] < 1


PLATEAU_CHAIN = {"parts": [{"name": "warmup", "steps": 20}, {"name": "plateau", "patience": 3}], "milestones": [20]}


@pytest.mark.parametrize("stepwise", [False, True], ids=["one clock", "a clock a lane"])
@pytest.mark.parametrize("by", [{}, EPOCHS], ids=["steps", "epochs"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [*(("plateau", settings | {"smoothing": 0.5}) for settings, _ in PLATEAUS), ("sequential", PLATEAU_CHAIN)],
)
def test_lanes_with_losses_of_their_own_equal_lone_fits(name, settings, by, stepwise):
    schedule, losses = build(name, **settings, **by), noisy_losses(lanes=(4,))
    losses[100, 1] = math.nan
    losses[:, 2] -= 60
    lag = torch.tensor([0.0, 1.0, 5.0, 30.0], dtype=torch.float64)
    together = watched(schedule, losses, (lambda step: step + lag) if stepwise else (lambda step: step))
    for lane in range(4):
        late = int(lag[lane]) if stepwise else 0
        alone = watched(schedule, losses[:, lane], lambda step, late=late: step + late)
        torch.testing.assert_close(together[:, lane], alone, rtol=1e-12, atol=1e-15)
    assert len({tuple(factors.tolist()) for factors in together.unbind(1)}) == 4


def test_plateau_takes_the_threshold_below_a_negative_best_loss_where_torch_takes_it_above():
    losses = torch.tensor([-100.0, -95.0, -95.0, -91.0, -95.0], dtype=torch.float64)
    factors = watched(Plateau(patience=1, threshold=0.1), losses)
    assert factors.tolist() == [1, 1, 1, 0.5, 0.5]
    better = watched(Plateau(patience=1, threshold=0.1), torch.tensor([-100.0, -95.0, -111.0, -91.0, -95.0]).double())
    assert better.tolist() == [1, 1, 1, 1, 1]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch_schedules.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, threshold=0.1)
    for loss in losses:
        scheduler.step(loss)
    assert optimizer.param_groups[0]["lr"] == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_plateau_counts_a_loss_that_is_no_number_as_no_better(bad, smoothing):
    schedule = Plateau(patience=1, smoothing=smoothing)
    losses = torch.tensor([bad, 10.0, bad, bad, 5.0, 1.0], dtype=torch.float64)
    assert watched(schedule, losses).tolist() == [1, 1, 1, 1, 0.5, 0.5]
    assert watched_state(schedule, losses)["best"] == watched_state(schedule, losses[losses.isfinite()])["best"]


def test_plateau_leaves_losses_that_are_no_numbers_out_of_an_epochs_mean():
    schedule = Plateau(interval="epoch", steps_per_epoch=3)
    losses = torch.tensor([3.0, math.nan, 5.0, math.nan, math.nan, math.nan], dtype=torch.float64)
    state = watched_state(schedule, losses)
    assert state["best"] == 4.0
    assert state["bad"] == 1.0


def test_plateau_smooths_by_an_average_that_is_right_from_the_start():
    losses = noisy_losses()[:50]
    state = watched_state(Plateau(smoothing=0.9), losses)
    weights = 0.9 ** torch.arange(49, -1, -1, dtype=torch.float64)
    torch.testing.assert_close(state["average"] / state["weight"], (weights * losses).sum() / weights.sum())
    # A fit whose losses fall is no plateau to an average, however noisy; the losses themselves are.
    falling = (
        torch.linspace(300, 0, STEPS, dtype=torch.float64) + 100 + 20 * noisy_losses(1).diff(prepend=torch.ones(1))
    )
    assert watched(Plateau(patience=30, smoothing=0.95), falling)[-1] == 1
    assert watched(Plateau(patience=30), falling)[-1] < 1


def test_plateau_changes_none_of_its_inputs():
    schedule = Plateau(patience=0, smoothing=0.5)
    state = {name: value.clone().expand(2).clone() for name, value in schedule.init().items()}
    before = {name: value.clone() for name, value in state.items()}
    after = schedule.observe(state, 0, torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert after.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
        assert after[name].dtype == torch.float64
        assert after[name].shape == (2,)


@pytest.mark.parametrize("growth", [2, 3, 7])
def test_every_wave_of_any_length_starts_at_one(growth):
    schedule = build("cosine_restarts", first=3, growth=growth)
    restarts = list(itertools.accumulate((3 * growth**wave for wave in range(12)), initial=0))
    assert [schedule.factor(restart) for restart in restarts] == [1.0] * 13
    assert schedule.factor(torch.tensor(restarts, dtype=torch.float64)).tolist() == [1.0] * 13
    ends = torch.tensor(restarts[2:], dtype=torch.float64) - 1
    assert schedule.factor(ends).max() < 0.2


@pytest.mark.parametrize("three_phase", [False, True])
def test_one_cycle_starts_at_its_peak_where_torch_divides_by_zero(three_phase):
    settings = {"steps": 10, "warm_fraction": 0.1, "three_phase": three_phase}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    with pytest.raises(ZeroDivisionError):
        one_cycle(total_steps=10, pct_start=0.1, three_phase=three_phase)(optimizer)
    factors = [build("one_cycle", **settings).factor(step) for step in range(10)]
    assert factors[0] == 1
    assert factors == sorted(factors, reverse=True)
    assert build("one_cycle", **settings).factor(torch.arange(10).double()).tolist() == pytest.approx(factors)


@pytest.mark.parametrize("name", ["linear", "polynomial", "cosine", "one_cycle"])
def test_an_open_length_becomes_the_fits(name):
    schedule = build(name)
    with pytest.raises(ValueError, match="steps is open"):
        schedule.factor(0)
    assert schedule.over(500) == build(name, steps=500)
    assert build(name, steps=20).over(500) == build(name, steps=20)
    assert build(name, **EPOCHS).over(500) == build(name, steps=72, **EPOCHS)
    assert build(name, **EPOCHS).over(497) == build(name, steps=71, **EPOCHS)
    factors = [schedule.over(500).factor(step) for step in range(500)]
    assert factors[-1] < 0.01 < 0.9 < max(factors)


@pytest.mark.parametrize("name", WITH_DEFAULTS)
def test_with_its_defaults_works_over_a_fit_of_any_length(name):
    for steps in (1, 2, 3, 10, 100, 2000):
        schedule = build(name).over(steps)
        assert schedule.over(steps + 1) == schedule
        factors = schedule.factor(torch.arange(steps, dtype=torch.float64), schedule.init())
        factors = torch.as_tensor(factors, dtype=torch.float64)
        assert factors.isfinite().all()
        assert ((factors > 0) & (factors <= 1)).all()


def test_lengths_in_a_sequence_reach_to_the_next_milestone_or_the_end():
    schedule = Sequential((Linear(), Cosine(), Cosine(steps=5), Cosine()), (10, 30, 60))
    assert schedule.over(100).parts == (Linear(steps=10), Cosine(steps=20), Cosine(steps=5), Cosine(steps=40))
    assert schedule.over(40).parts[-1] == Cosine(steps=1)
    by_epochs = dataclasses.replace(schedule, **EPOCHS)
    assert by_epochs.over(62 * PER_EPOCH - 1).parts[-1] == Cosine(steps=2)
    of_epochs = Sequential((Warmup(), Cosine(**EPOCHS)), (100,))
    assert of_epochs.over(100 + 3 * PER_EPOCH).parts[1] == Cosine(steps=3, **EPOCHS)
    nested = Sequential((Warmup(), Product((Cosine(), Sequential((Linear(), Cosine()), (50,))))), (100,))
    inner = nested.over(300).parts[1]
    assert isinstance(inner, Chain)
    assert inner.parts[0] == Cosine(steps=200)
    assert inner.parts[1] == Sequential((Linear(steps=50), Cosine(steps=150)), (50,))


def test_lengths_in_a_product_are_the_fits():
    assert Product((Linear(), OneCycle(steps=3))).over(70).parts == (Linear(steps=70), OneCycle(steps=3))
    assert Product((Linear(),), **EPOCHS).over(70).parts == (Linear(steps=10),)
    assert Product((Linear(**EPOCHS),)).over(70).parts == (Linear(steps=10, **EPOCHS),)


def test_only_the_part_in_force_sees_the_losses():
    losses = noisy_losses()
    plateau = Plateau(patience=3, gamma=0.9)
    chain = Sequential((Warmup(steps=20), plateau, plateau), (20, 500))
    factors = watched(chain, losses)
    torch.testing.assert_close(factors[20:500], watched(plateau, losses[20:500]), rtol=0, atol=0)
    torch.testing.assert_close(factors[500:], watched(plateau, losses[500:]), rtol=0, atol=0)
    middle = {name: value for name, value in watched_state(chain, losses).items() if name.startswith("1.")}
    assert middle == {f"1.{name}": value for name, value in watched_state(plateau, losses[20:500]).items()}


def test_a_chain_of_epochs_shows_its_parts_epochs():
    losses, plateau = noisy_losses(), Plateau(patience=3, gamma=0.9, **EPOCHS)
    factors = watched(Sequential((Warmup(steps=20), Plateau(patience=3, gamma=0.9)), (20,), **EPOCHS), losses)
    torch.testing.assert_close(factors[20 * PER_EPOCH :], watched(plateau, losses[20 * PER_EPOCH :]), rtol=0, atol=0)
    assert factors[-1] < 1


@pytest.mark.parametrize("by", [{}, EPOCHS], ids=["steps", "epochs"])
def test_all_parts_of_a_product_see_the_losses(by):
    losses = noisy_losses()
    one, other = Plateau(patience=3, gamma=0.9), Plateau(patience=7, min_factor=0.1)
    factors = watched(Product((one, other), **by), losses)
    alone = [watched(dataclasses.replace(part, **by), losses) for part in (one, other)]
    torch.testing.assert_close(factors, alone[0] * alone[1], rtol=1e-12, atol=0)


def test_parts_may_count_epochs_of_the_chains_steps():
    part = Plateau(patience=2, **EPOCHS)
    chain = Sequential((Warmup(steps=20), part), (20,))
    losses = noisy_losses()
    torch.testing.assert_close(watched(chain, losses)[20:], watched(part, losses[20:]), rtol=0, atol=0)


def test_state_has_the_names_of_the_parts():
    nested = Product((Warmup(), Sequential((Plateau(), Cosine(steps=3)), (5,))))
    assert set(nested.init()) == {f"1.0.{name}" for name in Plateau().init()}
    many = Product((Plateau(),) * 11)
    assert watched_state(many, noisy_losses()[:2]).keys() == many.init().keys()


TWO = [{"name": "warmup"}, {"name": "cosine"}]
BAD = [
    ("constant", {"initial_factor": 0.0}, "initial_factor"),
    ("constant", {"until": -1}, "until"),
    ("exponential", {"gamma": 1.5}, "gamma"),
    ("exponential", {"steps_per_epoch": 3}, "steps_per_epoch"),
    ("exponential", {"interval": "epoch"}, "steps_per_epoch"),
    ("exponential", {"interval": "batch"}, "interval"),
    ("step", {"every": 0}, "every"),
    ("multistep", {"milestones": [5, 5]}, "milestones"),
    ("multistep", {"milestones": [0, 5]}, "milestones"),
    ("multistep", {"milestones": 5}, "milestones"),
    ("linear", {"steps": 0}, "steps"),
    ("linear", {"initial_factor": 0.0}, "initial_factor"),
    ("polynomial", {"power": 0.0}, "power"),
    ("inverse_time", {"rate": 0.0}, "rate"),
    ("piecewise", {"milestones": [5, 3], "factors": [1, 2, 3]}, "milestones"),
    ("piecewise", {"milestones": [5], "factors": [1, 2, 3]}, "factors"),
    ("warmup", {"steps": None}, "steps"),
    ("warmup", {"shape": "square"}, "shape"),
    ("cosine", {"final_factor": 1.1}, "final_factor"),
    ("cosine_restarts", {"growth": 1.5}, "growth"),
    ("one_cycle", {"warm_fraction": 1.0}, "warm_fraction"),
    ("one_cycle", {"warm_fraction": 0.6, "three_phase": True}, "warm_fraction"),
    ("cyclic", {"low_factor": 1.0}, "high_factor"),
    ("cyclic", {"gamma": 0.9}, "gamma"),
    ("plateau", {"gamma": 1.0}, "gamma"),
    ("plateau", {"threshold": 1.0}, "threshold"),
    ("plateau", {"smoothing": 1.0}, "smoothing"),
    ("sequential", {"parts": []}, "parts"),
    ("sequential", {"parts": TWO, "milestones": []}, "milestones"),
    ("sequential", {"parts": [*TWO, {"name": "step"}], "milestones": [9, 3]}, "milestones"),
    ("sequential", {"parts": [{"name": "step", "gamma": 2}, {"name": "cosine"}]}, "parts.0.gamma"),
    ("sequential", {"parts": [{"name": "warmup"}, {"name": "cosin"}]}, "parts.1.name"),
    ("product", {"parts": []}, "parts"),
    ("product", {"parts": [{"name": "cosine", **EPOCHS}], **EPOCHS}, "parts"),
    ("product", {"parts": [{"name": "product", "parts": [{"name": "cosine", **EPOCHS}]}], **EPOCHS}, "parts"),
    ("product", {"parts": [{"name": "product", "parts": [{"name": "step", "every": 0}]}]}, "parts.0.parts.0.every"),
]


@pytest.mark.parametrize(("name", "settings", "key"), BAD)
def test_bad_settings_are_named(name, settings, key):
    with pytest.raises(ConfigError) as caught:
        build(name, **settings)
    assert [problem.key for problem in caught.value.problems] == [f"scheduler.{key}"]


@pytest.mark.parametrize("cls", [Sequential, Product])
def test_parts_in_python_are_schedules(cls):
    assert construct(cls, {"parts": TWO}, "scheduler")[1][0].key == "scheduler.parts"


@pytest.mark.parametrize("name", WITH_DEFAULTS)
def test_its_file_makes_what_the_class_is_by_default(name):
    text = (config.conf_dir() / "scheduler" / f"{name}.yaml").read_text()
    assert registry.build("scheduler", yaml.safe_load(text)) == build(name)


def test_every_registered_schedule_has_a_reference():
    assert {*(row[0] for row in REFERENCES), "plateau"} == set(registry.names("scheduler"))


def test_torchs_one_cycle_stays_at_its_last_value():
    arguments = {"max_lr": 1.0, "total_steps": 10}
    schedule = registry.build("scheduler", {"name": "torch", "scheduler": "OneCycleLR", "arguments": arguments})
    factors = [schedule.factor(step) for step in range(14)]
    assert factors[9] < 1e-5
    assert factors[10:] == [factors[9]] * 4
