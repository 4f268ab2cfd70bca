"""When fits end by themselves: not before they have settled, and soon after."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from lane_parity import recipe

import sweepvi
from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.environment import environment
from sweepvi.engine.lanes.captured import captured
from sweepvi.engine.lanes.cohort import Cohort
from sweepvi.engine.lanes.entrant import Entrant, Start
from sweepvi.engine.lanes.minibatches import GivenMinibatches
from sweepvi.engine.lanes.noise_modes import noise_of_steps
from sweepvi.engine.lanes.randomness import Given
from sweepvi.engine.watched import Watched
from sweepvi.private import transformable
from sweepvi.programs import reachable_modules
from sweepvi.stopping import Auto
from sweepvi.stopping.batches import Batches
from sweepvi.stopping.trend import significant, slopes

F64 = torch.float64
Y = torch.tensor([0.3, -1.2, 0.7, 2.0, 0.1, -0.4])
QUICK = {"name": "auto", "window": 64, "draws": 64}


# The watch, beside gradient descent on a quadratic loss of which everything is known.


def descend(watch, curvature, start, lr, noise, steps, seed=0):
    """Gradient descent on ½ Σ curvature · x², with noise in the gradient: steps taken, and the loss of the result.

    A draw e of the loss at x is ½ Σ curvature · x² + noise · x · e: the noise of the gradient, as it is in an ELBO.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(2000, len(curvature), generator=torch.Generator().manual_seed(1), dtype=F64)
    x = torch.tensor(start, dtype=F64)
    curvature = torch.tensor(curvature, dtype=F64)

    def loss(points):
        return (0.5 * curvature * points.square()).sum(-1)

    def answer(asking):
        request = next(asking, None)
        while request is not None:
            own = draws[request.first : request.first + request.draws]
            try:
                request = asking.send(loss(request.points)[:, None] + noise * request.points @ own.T)
            except StopIteration:
                return

    total, value, count = torch.zeros_like(x), 0.0, 0
    for step in range(1, steps + 1):
        e = torch.randn(len(x), generator=generator, dtype=F64)
        value += float(loss(x) + noise * x @ e)
        x = x - watch.rate * lr * (curvature * x + noise * e)
        total, count = total + x, count + 1
        if step == watch.next_look:
            answer(watch.look(total / count, value / count, x))
            total, value, count = torch.zeros_like(x), 0.0, 0
        if watch.done:
            return step, float(loss(x if watch.result is None else watch.result))
    answer(watch.exhaust(steps, x))
    return steps, float(loss(x if watch.result is None else watch.result))


def test_a_quadratic_settles_near_its_optimum():
    curvature = [1.0, 1.0, 1.0]
    for seed in range(5):
        watch = Auto().watch(3)
        steps, excess = descend(watch, curvature, [3.0, -2.0, 1.0], 0.05, 1.0, 20_000, seed)
        assert watch.stopped.startswith("settled after")
        assert 1024 <= steps < 8000
        assert excess < 0.01


def test_without_noise_it_settles_too():
    steps, excess = descend(Auto().watch(2), [1.0, 0.5], [3.0, 3.0], 0.05, 0.0, 20_000)
    assert steps < 3000
    assert excess < 1e-6


@pytest.mark.parametrize("noise", [0.0, 0.01, 1.0])
def test_what_still_gains_does_not_stop(noise):
    """One direction has long arrived, another is on its way for 100,000 steps: 5 nats lie before it."""
    watch = Auto().watch(2)
    assert descend(watch, [1.0, 1e-3], [1.0, 100.0], 0.01, noise * 0.05, 6000)[0] == 6000
    assert "still gaining" in watch.exhausted
    assert watch.rate == 1.0


def test_losses_that_fall_keep_it_going_where_parameters_do_not_tell():
    """Parameters of pure noise, and a loss that falls all the while, as it would by parameters that are not seen."""
    generator = torch.Generator().manual_seed(0)
    falling, flat = Auto(window=64).watch(2), Auto(window=64).watch(2)
    for step in range(400):
        iterates = torch.randn(2, generator=generator, dtype=F64) * 0.01
        for watch, loss in ((falling, 100.0 - step), (flat, 100.0)):
            asking = watch.look(iterates, loss, iterates)
            request = next(asking, None)
            while request is not None:
                try:
                    request = asking.send(torch.full((len(request.points), request.draws), loss, dtype=F64))
                except StopIteration:
                    break
    assert falling.rate == 1.0
    assert flat.done


def test_step_sizes_are_halved_while_that_gains():
    """The bias of the average is in proportion to the step size here: each halving gains until little is left."""
    generator = torch.Generator().manual_seed(0)
    watch, step = Auto(tolerance=0.01, window=64).watch(1), 0
    while not watch.done:
        assert (step := step + 1) < 4000
        # Noise around a point that is off by the step size: the loss is ½ x² · 100.
        iterates = watch.rate + 0.003 * torch.randn(1, generator=generator, dtype=F64)
        asking = watch.look(iterates, 50 * float(iterates.square()), iterates)
        request = next(asking, None)
        while request is not None:
            losses = (50 * request.points.square()).sum(-1)[:, None].expand(-1, request.draws)
            try:
                request = asking.send(losses)
            except StopIteration:
                break
    # Gains are 37.5, 9.4, 2.3, 0.59, 0.15, 0.037 and 0.009 nats.
    assert watch.rate == 0.5**7
    assert "7 reductions" in watch.stopped


def test_nan_losses_never_settle_anything():
    watch = Auto(window=64).watch(1)
    for _ in range(200):
        asking = watch.look(torch.zeros(1, dtype=F64), math.nan, torch.zeros(1))
        request = next(asking, None)
        while request is not None:
            try:
                request = asking.send(torch.full((len(request.points), request.draws), math.nan, dtype=F64))
            except StopIteration:
                break
    assert not watch.done
    assert watch.rate == 1.0


def test_a_trend_is_found_and_noise_has_none():
    noise = torch.randn(32, 200, generator=torch.Generator().manual_seed(0), dtype=F64)
    time = torch.arange(32, dtype=F64)[:, None]
    slope, t = slopes(torch.cat([noise, noise[:, :1] + 0.5 * time, torch.full((32, 1), 1.234567, dtype=F64)], 1))
    assert float(t[:200].abs().max()) < significant(200, 32)
    assert float(t[200]) > significant(202, 32)
    assert float(slope[200]) == pytest.approx(0.5, abs=0.1)
    assert float(t[201]) == 0.0
    assert float(slopes(time)[1]) > 1e6


def test_as_many_are_found_by_chance_as_the_level_says():
    noise = torch.randn(16, 20_000, generator=torch.Generator().manual_seed(0), dtype=F64)
    found = (slopes(noise)[1].abs().view(2000, 10).amax(-1) > significant(10, 16)).double().mean()
    assert float(found) == pytest.approx(0.05, abs=0.015)


def test_batches_keep_the_mean_and_never_become_many():
    batches = Batches(4, 8)
    for number in range(8):
        batches.add(torch.tensor([float(number)], dtype=F64), 2.0 * number)
    assert (len(batches), batches.width, batches.steps) == (4, 8, 32)
    assert batches.iterates(4).flatten().tolist() == [0.5, 2.5, 4.5, 6.5]
    assert batches.losses(2).flatten().tolist() == [9.0, 13.0]


# Fits.


def conjugate(y):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def divergence(params):
    """KL(guide | posterior) in nats, which is what the ELBO lacks."""
    loc, scale = (float(params[f"AutoNormal.{name}.mean"]) for name in ("locs", "scales"))
    mean, deviation = float(Y.sum()) / (len(Y) + 1), (len(Y) + 1) ** -0.5
    return math.log(deviation / scale) + (scale**2 + (loc - mean) ** 2) / (2 * deviation**2) - 0.5


def fitted(engine="lanes", **settings):
    settings = {"steps": 6000, "dtype": "float64", "restarts": 1, "score_draws": 0, "posterior_draws": 0, **settings}
    if engine == "eager":
        settings.pop("restarts")
    return sweepvi.fit(conjugate, (Y,), stop=settings.pop("stop", "auto"), engine=engine, **settings)


@pytest.mark.parametrize(("estimator", "lr"), [("trace", 0.01), ("trace", 0.3), ("stl", 0.02)])
def test_a_fit_stops_by_itself_at_the_optimum(estimator, lr):
    result = fitted(estimator=estimator, optimizer={"name": "clipped_adam", "lr": lr}, seed=1)
    assert result.status == "finished"
    assert 1024 <= result.steps < 6000
    assert len(result.losses) == result.steps
    assert result.stopped.startswith(f"settled after {result.steps:,} steps")
    assert divergence(result.params) < 0.01
    assert result.rates["all"][0] == lr
    assert result.rates["all"][-1] < lr


def test_a_badly_scaled_fit_that_still_gains_goes_on():
    """Two directions, one of which is a thousand times as wide: at this step size, it takes 100,000 steps."""
    scales = torch.tensor([1.0, 1000.0])

    def model():
        pyro.sample("x", dist.Normal(3 * scales, scales).to_event(1))

    result = sweepvi.fit(model, stop="auto", steps=1500, restarts=1, engine="lanes", score_draws=0, posterior_draws=0)
    assert result.steps == 1500
    assert result.stopped.startswith("all 1,500 steps taken, still gaining 0.0")
    assert result.summary()["stopped"] == result.stopped


def test_lanes_stop_each_by_itself_and_as_alone():
    """Step sizes, seeds and lengths differ; one diverges from the start."""
    settings = [
        {"seed": 1, "optimizer": {"name": "clipped_adam", "lr": 0.05}},
        {"seed": 2, "optimizer": {"name": "adam", "lr": 0.4}, "scheduler": "cosine"},
        {"seed": 3, "steps": 90},
        {"seed": 4, "optimizer": {"name": "sgd", "lr": 1e30}},
    ]
    common = {"engine": "lanes", "stop": QUICK, "steps": 1500, "dtype": "float64", "restarts": 1, "score_draws": 0}
    together = sweepvi.fit_many(conjugate, (Y,), settings=settings, **common)
    assert [result.status for result in together] == ["finished"] * 3 + ["diverged"]
    assert len({result.steps for result in together}) == 4
    for own, result in zip(settings[:3], together[:3], strict=True):
        alone = sweepvi.fit(conjugate, (Y,), posterior_draws=0, **{**common, **own})
        assert (alone.steps, alone.stopped) == (result.steps, result.stopped)
        for name, value in alone.params.items():
            torch.testing.assert_close(result.params[name], value, rtol=1e-8, atol=1e-8)


def test_restarts_settle_for_themselves_and_are_compared():
    result = fitted(restarts=3, stop=QUICK, score_draws=100)
    assert [each["status"] for each in result.restarts] == ["finished"] * 3
    assert result.r_hat
    assert all(value > 0 for value in result.r_hat.values())
    assert result.stopped.startswith("settled")


@pytest.mark.parametrize(("engine", "steps"), [("lanes", 39), ("lanes", 75), ("eager", 75)])
def test_a_resumed_fit_is_the_same_to_the_last_bit(engine, steps, tmp_path):
    """Cut in the middle of a batch, after the first reduction and before it."""
    # At this tolerance, few evaluations decide.
    stop = {"name": "auto", "window": 32, "draws": 32, "tolerance": 0.3}
    how = {"engine": engine, "stop": stop, "optimizer": {"name": "clipped_adam", "lr": 0.1}}
    whole = fitted(**how, steps=400)
    assert 75 < whole.steps < 400
    part = fitted(**how, steps=steps, folder=tmp_path)
    assert part.steps == steps
    assert "steps taken" in part.stopped
    resumed = fitted(**how, steps=400, folder=tmp_path, resume=True)
    assert (resumed.steps, resumed.stopped) == (whole.steps, whole.stopped)
    for name, value in whole.params.items():
        assert torch.equal(resumed.params[name], value)
    torch.testing.assert_close(resumed.losses, whole.losses, rtol=0, atol=0)
    # One that has settled takes no step more, and its result can be read again.
    again = fitted(**how, steps=500, folder=tmp_path, resume=True)
    assert (again.steps, again.stopped) == (whole.steps, whole.stopped)
    loaded = sweepvi.FitResult.load(tmp_path, conjugate, (Y,))
    for name, value in whole.params.items():
        assert torch.equal(again.params[name], value)
        assert torch.equal(loaded.runnable.fitted.state.constrained()[name], value)


def test_the_eager_engine_decides_as_lanes_do_on_the_same_noise():
    made = recipe(conjugate, (Y,), stop=QUICK, engine={"steps": 400, "posterior_draws": 0})
    lane = sweepvi.fit(
        conjugate, (Y,), stop=QUICK, engine="lanes", steps=400, dtype="float64", restarts=1, score_draws=0,
        posterior_draws=0,
    )  # fmt: skip
    with environment(made.settings, reachable_modules(made.reach())) as isolation:
        engine = EagerEngine(made, isolation)
        found = captured(engine)
        entrant = Entrant.of(made, Start.of(engine), engine.optimization, found)
        cohort = Cohort(found, [entrant], 1, made.settings, 1)
        watched = Watched(engine, made.stop)
        # Draws of evaluations are each engine's own.
        watched._losses = lambda request: cohort.losses(0, request.points, request.first, request.draws)
        while not watched.done:
            seeds, at = torch.tensor([made.settings.seed]), torch.tensor([engine.step_count])
            noise = noise_of_steps(found.draws.noise, made.settings.noise, seeds, at)
            own = found.draws.noise.of_lane({sort: rows[0, 0] for sort, rows in noise.items()})
            with transformable(), GivenMinibatches([]), Given(own, in_place=True):
                loss = engine.step()
            watched.stepped(loss)
            watched.look()
        assert engine.step_count == lane.steps < 400
        assert watched.stopped == lane.stopped
        with engine.optimization.evaluated():
            for name, value in lane.params.items():
                torch.testing.assert_close(pyro.param(name).detach(), value, rtol=1e-7, atol=1e-7)


def test_minibatches_and_steps_left_out():
    """Lanes share minibatches, so that one's look is a stop of all; a step left out is in no average."""

    def model(y):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y), subsample_size=3) as rows:
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y[rows])

    how = {"stop": QUICK, "dtype": "float64", "score_draws": 0, "posterior_draws": 0, "engine": "lanes"}
    result = sweepvi.fit(model, (Y,), **how, steps=300, restarts=2, on_nonfinite="skip")
    assert result.status == "finished"
    assert result.stopped


def test_too_short_a_fit_is_as_without():
    short = fitted(steps=20)
    assert short.stopped == "all 20 steps taken, too few to say whether it has settled"
    plain = fitted(steps=20, stop="steps")
    assert plain.stopped == ""
    for name, value in plain.params.items():
        assert torch.equal(short.params[name], value)


def test_an_optimizer_of_torchs_is_slowed_down_too():
    result = sweepvi.fit(
        conjugate, (Y,), stop={**QUICK, "draws": 32, "tolerance": 0.3}, steps=200, engine="eager", score_draws=0,
        posterior_draws=0, optimizer=lambda groups: torch.optim.Adam(groups, lr=0.1),
    )  # fmt: skip
    assert result.rates["all"][-1] < 0.1


def test_sweeps_refuse_it_before_anything_runs():
    from sweepvi.sweep.python import plan_from_python

    with pytest.raises(sweepvi.ConfigError, match=r"stop = 'auto': trials .* use stop=steps"):
        plan_from_python(
            conjugate, (Y,), {}, space={"optimizer.lr": [0.1, 0.2]}, sweep={}, workers=None, guide="auto_normal",
            estimator="trace", optimizer="adam", scheduler="constant", partition="single", stop="auto",
            engine={"name": "lanes"},
        )  # fmt: skip
