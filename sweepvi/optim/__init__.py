"""Update rules, one file each, and the ``torch.optim`` optimizers made from them."""

from sweepvi.optim.adam import Adam, AdamRule
from sweepvi.optim.adamw import AdamW, AdamWRule
from sweepvi.optim.clipped_adam import ClippedAdam, ClippedAdamRule
from sweepvi.optim.rmsprop import RMSprop, RMSpropRule
from sweepvi.optim.rule import Hyper, Rule, Slots, Step
from sweepvi.optim.sgd import SGD, SGDRule
from sweepvi.optim.torch_face import RuleOptimizer

__all__ = [
    "SGD",
    "Adam",
    "AdamRule",
    "AdamW",
    "AdamWRule",
    "ClippedAdam",
    "ClippedAdamRule",
    "Hyper",
    "RMSprop",
    "RMSpropRule",
    "Rule",
    "RuleOptimizer",
    "SGDRule",
    "Slots",
    "Step",
]
