"""Update rules, one file each, and the ``torch.optim`` optimizers made from them; minimizers for frozen noise."""

from sweepvi.optim.adadelta import Adadelta, AdadeltaRule
from sweepvi.optim.adafactor import Adafactor, AdafactorRule
from sweepvi.optim.adagrad import Adagrad, AdagradRule
from sweepvi.optim.adagrad_rmsprop import AdagradRMSProp, AdagradRMSPropRule
from sweepvi.optim.adam import Adam, AdamRule
from sweepvi.optim.adamax import Adamax, AdamaxRule
from sweepvi.optim.adamw import AdamW, AdamWRule
from sweepvi.optim.asgd import ASGD, ASGDRule
from sweepvi.optim.clip import Clip
from sweepvi.optim.clipped_adam import ClippedAdam, ClippedAdamRule
from sweepvi.optim.dct_adam import DCTAdam, DCTAdamRule
from sweepvi.optim.horovod_optimizer import HorovodOptimizer
from sweepvi.optim.lbfgs import LBFGS
from sweepvi.optim.minimizer import Minimizer, Objective, Search
from sweepvi.optim.muon import Muon, MuonRule
from sweepvi.optim.nadam import NAdam, NAdamRule
from sweepvi.optim.newton import TrustRegionNewton
from sweepvi.optim.radam import RAdam, RAdamRule
from sweepvi.optim.rmsprop import RMSprop, RMSpropRule
from sweepvi.optim.rprop import Rprop, RpropRule
from sweepvi.optim.rule import Hyper, Rule, Slots, Step
from sweepvi.optim.schedule_free_adam import ScheduleFreeAdam, ScheduleFreeAdamRule
from sweepvi.optim.schedule_free_prodigy import ScheduleFreeProdigy, ScheduleFreeProdigyRule
from sweepvi.optim.sgd import SGD, SGDRule
from sweepvi.optim.snapshot import OptimizerSnapshot, load_snapshot, snapshot
from sweepvi.optim.torch_face import RuleOptimizer

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "ASGDRule",
    "Adadelta",
    "AdadeltaRule",
    "Adafactor",
    "AdafactorRule",
    "Adagrad",
    "AdagradRMSProp",
    "AdagradRMSPropRule",
    "AdagradRule",
    "Adam",
    "AdamRule",
    "AdamW",
    "AdamWRule",
    "Adamax",
    "AdamaxRule",
    "Clip",
    "ClippedAdam",
    "ClippedAdamRule",
    "DCTAdam",
    "DCTAdamRule",
    "HorovodOptimizer",
    "Hyper",
    "Minimizer",
    "Muon",
    "MuonRule",
    "NAdam",
    "NAdamRule",
    "Objective",
    "OptimizerSnapshot",
    "RAdam",
    "RAdamRule",
    "RMSprop",
    "RMSpropRule",
    "Rprop",
    "RpropRule",
    "Rule",
    "RuleOptimizer",
    "SGDRule",
    "ScheduleFreeAdam",
    "ScheduleFreeAdamRule",
    "ScheduleFreeProdigy",
    "ScheduleFreeProdigyRule",
    "Search",
    "Slots",
    "Step",
    "TrustRegionNewton",
    "load_snapshot",
    "snapshot",
]
