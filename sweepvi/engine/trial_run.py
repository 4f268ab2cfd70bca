"""Whether a model runs on its data at all, found out before anything is written."""

from __future__ import annotations

from sweepvi.engine.eager import EagerEngine
from sweepvi.engine.environment import environment
from sweepvi.errors import ConfigError, Problem
from sweepvi.loading import described
from sweepvi.recipe import Recipe


def trial_run(recipe: Recipe) -> None:
    """Run model and guide once, as a fit's first step would.

    Raises ``ConfigError`` with the model's own error in one line: data of the wrong shape or outside a
    distribution's support, plates that do not match, a guide that does not cover the model, nothing to optimize.
    """
    with environment(recipe.settings, recipe.programs()):
        start(recipe)


def start(recipe: Recipe) -> EagerEngine:
    """The engine at step 0; ``ConfigError`` if the model or its guide does not run."""
    try:
        engine = EagerEngine(recipe)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError([Problem("model", f"does not run on its data: {described(error)}")]) from error
    if not engine.optimization.live:
        raise ConfigError([Problem("guide", "model and guide have no parameters; there is nothing to optimize")])
    return engine
