"""Hydra's way to sweepvi's sweeper. Every Hydra program of the environment imports this: it must stay light."""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, run_job
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

# A plain mapping: Hydra 1.3 executes this file before the module has its name, which a dataclass needs.
ConfigStore.instance().store(
    group="hydra/sweeper",
    name="sweepvi",
    node={"_target_": "hydra_plugins.sweepvi.SweepviSweeper"},
    provider="sweepvi",
)


class SweepviSweeper(Sweeper):
    """Runs the program's task once, as one job in ``hydra.sweep.dir``: the task itself runs the trials.

    A task with ``agents`` is run so many times, by Hydra's launcher.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See :meth:`Sweeper.setup`."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        """Run the task with what the arguments set, one value each; returns what it returns."""
        assert self.config is not None
        assert self.hydra_context is not None
        agents = getattr(self.task_function, "agents", 0)
        if agents:
            return self._launch([list(arguments) for _ in range(agents)])
        composed = self.hydra_context.config_loader.load_sweep_config(self.config, arguments)
        done: JobReturn = run_job(
            task_function=self.task_function,
            config=composed,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key=None,
            hydra_context=self.hydra_context,
        )
        return done.return_value

    def _launch(self, jobs: list[list[str]]) -> Any:
        from hydra.core.plugins import Plugins

        assert self.hydra_context is not None
        assert self.config is not None
        task: Any = self.task_function
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=task, config=self.config
        )
        done = launcher.launch(jobs, initial_job_idx=0)
        task.returned.extend(job.return_value for job in done)
        return task.returned
