"""Event logs of sweeps that nobody ran, to test what is made of them."""

from __future__ import annotations

import json
import random

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json

LR = FloatDistribution(1e-4, 1e-1, log=True)
OPTIMIZERS = CategoricalDistribution(("adam", "clipped_adam", "adagrad_rmsprop"))
PARTICLES = IntDistribution(1, 16, log=True)
ETA = FloatDistribution(1e-4, 1.0, log=True)


def header(objectives=("elbo",), direction=("maximize",), **changed):
    return {
        "event": "study",
        "version": 1,
        "identity": {"space": {"optimizer": "adam,clipped_adam,adagrad_rmsprop"}},
        "settings": {"n_trials": 20, "sampler": "tpe", "pruner": "hyperband"},
        "direction": list(direction),
        "objectives": list(objectives),
        "created": "2026-01-02T03:04:05",
        **changed,
    }


def asked(number, params, distributions):
    texts = {name: distribution_to_json(distribution) for name, distribution in distributions.items()}
    return {"event": "asked", "number": number, "params": params, "distributions": texts}


def ended(number, state="COMPLETE", values=None, **changed):
    return {
        "event": "ended",
        "number": number,
        "state": state,
        "values": values,
        "value_se": 0.07 if values else None,
        "seconds": 0.25,
        "steps": 2000,
        "message": "",
        "reason": "",
        "curve": [[step, 1064 + 3000 / (1 + step)] for step in range(0, 2001, 50)],
        "engine": "lanes",
        "system_attrs": {},
        **changed,
    }


def final(number, role="rescored", seed=0, elbo=-1064.3, **changed):
    known = {"event": "final", "number": number, "role": role, "seed": seed, "elbo": elbo, "elbo_se": 0.02}
    return {**known, "draws": 10000, **changed}


def sampled(count, seed=0, objectives=("elbo",), direction=("maximize",)):
    """A study as it could have gone: a conditional space, pruned, diverged and crashed trials among the complete."""
    draw = random.Random(seed)
    events = [header(objectives, direction), {"event": "session", "started": "2026-01-02T03:04:05", "workers": 2}]
    for number in range(count):
        optimizer = draw.choice(OPTIMIZERS.choices)
        step = "optimizer.eta" if optimizer == "adagrad_rmsprop" else "optimizer.lr"
        away = draw.uniform(-1.5, 1.0)
        params = {"optimizer": optimizer, step: 10**away / 100, "estimator.num_particles": draw.randint(1, 16)}
        spaces = {
            "optimizer": OPTIMIZERS,
            step: ETA if step.endswith("eta") else LR,
            "estimator.num_particles": PARTICLES,
        }
        score = -1064 - 4 * away**2 - draw.random() / params["estimator.num_particles"]
        events.append(asked(number, params, spaces))
        events += _fate(number, score, draw, len(objectives))
    events.append({"event": "occupancy", "lanes_busy": 0.93, "sampler_seconds": 1.2, "computing_seconds": 80.5})
    return events


def _fate(number, score, draw, objectives):
    rungs = [
        {
            "event": "rung",
            "number": number,
            "rung": rung,
            "step": step,
            "resource": 3**rung,
            "value": score - 300 / 3**rung,
        }
        for rung, step in enumerate((74, 222, 666))
    ]
    luck = draw.random()
    if luck < 0.3 and objectives == 1:
        rungs[1]["pruned"] = True
        return [
            *rungs[:2],
            ended(number, "PRUNED", reason="rung", steps=222, message="stopped at a rung after 222 steps"),
        ]
    if luck < 0.38:
        where = "step 120: the gradient of AutoNormal.scales.mu is not finite"
        return [rungs[0], ended(number, "PRUNED", reason="diverged", steps=120, message=where)]
    if luck < 0.4:
        return [ended(number, "FAIL", reason="crash", steps=None, seconds=None, message="ValueError: <bad> & worse")]
    # Now and then, a fit that went astray and does not know it.
    values = [score * (1000 if luck > 0.97 else 1), *(draw.random() for _ in range(objectives - 1))]
    return [*rungs, ended(number, values=values)]


def write(folder, events, torn=""):
    """A sweep folder with these events, and part of a line that a crash cut off."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(event) + "\n" for event in events)
    (folder / "study.jsonl").write_text(text + torn)
    return folder
