"""A model that fails in the way that its seed says."""

import os
import signal
import time

import pyro
import pyro.distributions as dist
import torch

RAISES, DIES, HANGS, IS_NAN, EATS = 1, 2, 3, 4, 5


class Faulty:
    """A normal mean, which goes wrong at the tenth call."""

    def __init__(self):
        self.fault = torch.initial_seed()
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self.calls > 10:
            self.go_wrong()
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        if self.fault == IS_NAN and self.calls > 10:
            mean = mean * float("nan")
        pyro.sample("y", dist.Normal(mean, 1.0, validate_args=False), obs=torch.tensor(1.0))

    def go_wrong(self):
        if self.fault == RAISES:
            raise ValueError("this model does not like its seed")
        if self.fault == DIES:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == HANGS:
            time.sleep(1000)
        if self.fault == EATS:
            self.eaten = [torch.ones(1 << 28) for _ in range(64)]
