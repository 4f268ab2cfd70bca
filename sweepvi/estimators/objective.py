"""What estimators share whose objective is computed whole, and differentiated as it is."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from pyro.infer.elbo import ELBO
from torch import Tensor


class ObjectiveElbo(ELBO):
    """An object whose loss is :meth:`objective`."""

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The objective."""
        with torch.no_grad():
            return self.objective(model, guide, args, kwargs).item()

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """The objective; its gradient is left in the parameters."""
        objective = self.objective(model, guide, args, kwargs)
        if objective.requires_grad:
            objective.backward(retain_graph=self.retain_graph)
        return objective.item()

    @abstractmethod
    def objective(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Tensor:
        """What is minimised, shape []."""
