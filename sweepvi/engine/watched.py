"""One fit on the eager engine with its watch."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pyro
import torch
from torch import Tensor

from sweepvi.engine.checkpoint import Snapshot
from sweepvi.engine.eager import EagerEngine, NonFiniteError
from sweepvi.stopping import Asking, Request, Stop, Watch

EVALUATION_SEED = 0x5EED0000
"""Of the first draw of evaluations."""


class Watched:
    """Keeps the means between looks, and evaluates the loss where the watch asks for it.

    Args:
        engine: the fit.
        stop: when it is done.

    """

    def __init__(self, engine: EagerEngine, stop: Stop) -> None:
        self._engine = engine
        self.watch: Watch | None = stop.watch(self._position().numel())
        self._forget()

    @property
    def done(self) -> bool:
        """Whether the fit is to end."""
        return self.watch is not None and self.watch.done

    @property
    def stopped(self) -> str:
        """Why the fit was done when it ended."""
        return "" if self.watch is None else self.watch.stopped or self.watch.exhausted

    def stepped(self, loss: float) -> None:
        """Take an update into the means."""
        if self.watch is None:
            return
        position = self._position()
        if position.numel() != self.watch.size:
            # Parameters have appeared late: this update begins a batch of theirs.
            self.watch.resize(self._engine.step_count - 1, position.numel())
            self._forget()
        self._count += 1
        self._mean = position if self._count == 1 else self._mean + (position - self._mean) / self._count
        self._loss += (loss - self._loss) / self._count

    def look(self) -> None:
        """Let the watch look, if a look is due; and choose the result, if all steps are taken."""
        watch, engine = self.watch, self._engine
        if watch is None:
            return
        total = engine.recipe.settings.steps
        # Updates may all have been left out.
        if engine.step_count == watch.next_look:
            mean = self._mean if self._count else self._position()
            self._answer(watch.look(mean.cpu(), self._loss, self._result()))
            self._forget()
            engine.optimization.rate = watch.rate
        if engine.step_count == total and not watch.done:
            self._answer(watch.exhaust(total, self._result()))
        if watch.result is not None:
            engine.optimization.instead = self._unpacked(watch.result)

    def into(self, snapshot: Snapshot) -> Snapshot:
        """A snapshot with all that there is as a part."""
        if self.watch is not None:
            tensors, meta = self.watch.state()
            snapshot.put("watch", tensors | {"mean": self._mean}, {**meta, "count": self._count, "loss": self._loss})
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Take over what :meth:`into` has added."""
        if self.watch is None:
            return
        tensors, meta = snapshot.get("watch")
        self.watch.load(tensors, meta)
        self._mean, self._count, self._loss = tensors["mean"], meta["count"], meta["loss"]
        self._engine.optimization.rate = self.watch.rate
        if self.watch.result is not None:
            self._engine.optimization.instead = self._unpacked(self.watch.result)

    def _forget(self) -> None:
        self._mean, self._count, self._loss = torch.zeros(0, device="cpu"), 0, 0.0

    def _position(self) -> Tensor:
        params = [param.detach().flatten() for param in self._engine.optimization.live.values()]
        return torch.cat(params)

    def _result(self) -> Tensor:
        with self._engine.optimization.evaluated():
            return self._position().cpu()

    def _unpacked(self, point: Tensor) -> Mapping[str, Tensor]:
        live = self._engine.optimization.live
        parts = point.split([param.numel() for param in live.values()])
        return {name: part.view_as(param).to(param) for (name, param), part in zip(live.items(), parts, strict=True)}

    def _answer(self, asking: Asking) -> None:
        request = next(asking, None)
        while request is not None:
            try:
                request = asking.send(self._losses(request))
            except StopIteration:
                return

    def _losses(self, request: Request) -> Tensor:
        """Shape [P, draws]; infinite where a loss is not finite."""
        engine = self._engine
        found = torch.full((len(request.points), request.draws), math.inf, dtype=torch.float64, device="cpu")
        with engine.undone():
            for place, point in enumerate(request.points):
                engine.move_to(self._unpacked(point))
                for draw in range(request.draws):
                    pyro.set_rng_seed(EVALUATION_SEED + request.first + draw)
                    try:
                        found[place, draw] = engine.gradients()[0]
                    except NonFiniteError:
                        continue
        return found
