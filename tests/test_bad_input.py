"""Bad input: one message that names every offending key and what would be valid, status 2, nothing written."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import torch
from fork_server import started
from safetensors.torch import save

from sweepvi import api, registry
from sweepvi.catalogue import flat_keys
from sweepvi.cli import main
from sweepvi.engine.checkpoint import FORMAT
from sweepvi.sweep import running
from sweepvi.sweep.slots import Crew

WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")

MINE = """
import pyro, torch
import pyro.distributions as dist
from pyro.infer.autoguide import AutoNormal

number = 3
data = {"y": torch.randn(5)}

def model(y=None):
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", 5):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

def counts(y):
    rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
    with pyro.plate("rows", 3):
        pyro.sample("y", dist.Poisson(rate), obs=y)

def two():
    pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("sigma", dist.LogNormal(0.0, 1.0))

def nothing_latent(y=torch.zeros(5)):
    with pyro.plate("rows", 5):
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

def switch():
    pyro.sample("on", dist.Bernoulli(0.5))

def twice():
    pyro.sample("mu", dist.Normal(0.0, 1.0))
    pyro.sample("mu", dist.Normal(0.0, 1.0))

def quits():
    raise SystemExit(3)

def needs(size):
    return torch.zeros(size)

def data_fails():
    raise ValueError("the sensor was off")

def data_absent():
    return open("readings.csv")

class Needs:
    def __init__(self, size): pass
    def __call__(self): pass

class Silent:
    pass

short = {"y": torch.randn(4)}
flat = torch.zeros(5, 2)
misnamed = {"x": torch.randn(5)}
negative = {"y": torch.tensor([-1.0, 2.0, 3.0])}
text = {"y": "five numbers"}

def no_parameters(*args, **kwargs):
    pyro.sample("mu", dist.Normal(0.0, 1.0))

def only_mu(*args, **kwargs):
    pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))

def too_wide(*args, **kwargs):
    pyro.sample("mu", dist.Normal(pyro.param("loc", torch.zeros(3)), 1.0).to_event(1))

def with_more(*args, **kwargs):
    only_mu()
    pyro.sample("nu", dist.Normal(0.0, 1.0))

def guide_fails(*args, **kwargs):
    raise RuntimeError("not finished yet")
"""

EXPERIMENT = "# @package _global_\n"

FILES = {
    "mine.py": MINE,
    "notes.txt": "just text\n",
    "latin1.yaml": "name: h\xe9\n",
    "syntax.py": "def model(:\n",
    "raises.py": "x = 1\nraise ValueError('bad day')\n",
    "quits.py": "import sys\nsys.exit(3)\n",
    "imports.py": "import no_such_package\n",
    "gone.py": "raise FileNotFoundError('the data are gone')\n",
    "reads.py": "text = open('absent.csv').read()\n",
    "empty.py": "",
    # Configurations to rerun.
    "rerun/target.yaml": "optimizer: {name: adam, lr: {_target_: os.getcwd}}\n",
    "rerun/env.yaml": "engine: {name: eager, device: '${oc.env:HOME}'}\n",
    "rerun/interpolated.yaml": "optimizer: {name: adam, lr: '${engine.steps}'}\n",
    "rerun/group.yaml": "optimiser: {name: adam}\n",
    "rerun/hydra.yaml": "hydra: {run: {dir: elsewhere}}\n",
    "rerun/option.yaml": "optimizer: {name: adan}\n",
    "rerun/key.yaml": "optimizer: {name: adam, lrr: 0.1}\n",
    "rerun/dotted_key.yaml": "optimizer: {name: adam, 'lr=1,x': 0.1}\n",
    "rerun/value.yaml": "optimizer: {name: adam, lr: fast}\nengine: {name: eager, steps: 0}\n",
    "rerun/nan.yaml": "optimizer: {name: adam, lr: .nan}\n",
    "rerun/quote.yaml": 'engine: {name: eager, device: "it\'s \\\\"}\n',
    "rerun/date.yaml": "optimizer: {name: adam, lr: 2020-01-01}\n",
    "rerun/nameless.yaml": "optimizer: {lr: 0.1}\n",
    "rerun/scalar.yaml": "optimizer: adam\n",
    "rerun/null_name.yaml": "optimizer: {name: null}\n",
    "rerun/list_name.yaml": "optimizer: {name: [adam]}\n",
    "rerun/list.yaml": "- optimizer\n- adam\n",
    "rerun/empty.yaml": "",
    "rerun/text.yaml": "just text\n",
    "rerun/broken.yaml": "optimizer: {name: adam\n",
    "rerun/tab.yaml": "optimizer:\n\tname: adam\n",
    "rerun/twice.yaml": "optimizer: {name: adam}\noptimizer: {name: sgd}\n",
    "rerun/object.yaml": "optimizer: !!python/object/apply:os.getcwd []\n",
    "rerun/loop.yaml": "optimizer: &a {name: adam, lr: *a}\n",
    "rerun/code.yaml": "model: {name: custom, path: 'mine.py:model', data: null}\n",
    "rerun/python.yaml": "model: {name: python, object: 'mine:model'}\n",
    "no_config/sweepvi.log": "",
    "config_is_folder/config.yaml/x": "",
    # Configuration folders.
    "c_broken/optimizer/mine.yaml": "name: adam\nlr: [0.1\n",
    "c_target/optimizer/mine.yaml": "name: adam\nlr:\n  _target_: os.getcwd\n",
    "c_nested_target/experiment/x.yaml": EXPERIMENT + "optimizer: {betas: [{_target_: os.getcwd}]}\n",
    "c_callbacks/experiment/x.yaml": EXPERIMENT + "hydra: {callbacks: {a: {b: c}}}\n",
    "c_job_logging/experiment/x.yaml": EXPERIMENT + "hydra: {job_logging: {handlers: {h: {'()': os.getcwd}}}}\n",
    "c_dotted/experiment/x.yaml": EXPERIMENT + "hydra.launcher: {n_jobs: 2}\n",
    "c_launcher/experiment/x.yaml": EXPERIMENT + "defaults:\n  - override hydra/launcher: joblib\n",
    "c_package/experiment/x.yaml": "# @package hydra\njob: {name: other}\n",
    "c_subpackage/experiment/x.yaml": "#  @package hydra.job_logging\nroot: {handlers: []}\n",
    "c_relocated/experiment/x.yaml": EXPERIMENT + "defaults:\n  - /extra@hydra.job_logging: mine\n",
    "c_relocated/extra/mine.yaml": "handlers: {file: {'()': os.getcwd}}\n",
    "c_hydra_group/experiment/x.yaml": EXPERIMENT + "defaults:\n  - /hydra: mine\n",
    "c_hydra_group/hydra/mine.yaml": "job_logging: {handlers: {file: {'()': os.getcwd}}}\n",
    "c_logging/hydra/job_logging/mine.yaml": "version: 1\nhandlers: {file: {'()': os.getcwd}}\n",
    "c_env/experiment/x.yaml": EXPERIMENT + "engine: {device: '${oc.env:HOME}'}\n",
    "c_env_hidden/experiment/x.yaml": EXPERIMENT
    + "hydra: {run: {dir: '${oc.${hydra.sweep.subdir}:HOME}'}, sweep: {subdir: env}}\n",
    "c_loop/experiment/x.yaml": EXPERIMENT + "engine: &a {device: *a}\n",
    "c_object/experiment/x.yaml": "engine: !!python/object/apply:os.getcwd []\n",
    "c_path/experiment/x.yaml": EXPERIMENT
    + "defaults:\n  - override /model: custom\nmodel: {path: 'mine.py:model', data: 'mine.py:data'}\n",
    "c_path/model/mine.yaml": "name: custom\npath: mine.py:model\n",
    "c_path/guide/mine.yaml": "name: custom\npath: mine.py:only_mu\n",
    "c_option/optimizer/mine.yaml": "name: adan\nlr: 0.1\n",
    "c_option/optimizer/range.yaml": "name: adam\nlr: -5\nbetas: [0.9, 1.0]\n",
    "c_option/optimizer/key.yaml": "name: adam\nlearning_rate: 0.1\n",
    "c_option/optimizer/nameless.yaml": "lr: 0.1\n",
    "c_option/optimizer/empty.yaml": "",
    "c_option/optimizer/list.yaml": "- lr\n- 0.1\n",
    "c_option/optimizer/required.yaml": "name: adam\nlr: ???\n",
    "c_option/experiment/group.yaml": EXPERIMENT + "optimiser: {lr: 0.1}\n",
    "c_option/experiment/flat.yaml": EXPERIMENT + "lr: 0.1\n",
    "c_option/experiment/absent.yaml": EXPERIMENT + "defaults:\n  - override /optimizer: adan\n",
    "c_option/experiment/unpackaged.yaml": "optimizer: {lr: 0.1}\n",
    "c_option/experiment/nulled.yaml": EXPERIMENT + "optimizer: null\n",
    "c_search/optimizer/unknown.yaml": "name: adam\nsearch: {lrr: 'interval(0.1, 1)'}\n",
    "c_search/optimizer/outside.yaml": "name: adam\nsearch: {lr: 'interval(-1, 1)'}\n",
    "c_search/optimizer/fixed.yaml": "name: adam\nsearch: {lr: 0.1, eps: '1e-8'}\n",
    "c_search/optimizer/log.yaml": "name: adam\nsearch: {lr: 'tag(log, interval(0, 1))'}\n",
    "c_search/optimizer/list.yaml": "name: adam\nsearch: [lr]\n",
    "c_search/sweep/code.yaml": "space: {model.path: 'mine.py:model,mine.py:two'}\n",
    "c_search_hydra/sweep/hydra.yaml": "space: {hydra.job.name: 'a,b'}\n",
    "c_search/sweep/strange.yaml": "trials: 3\n",
    "c_option/optimizer/wrong_ending.yml": "name: adam\n",
}


def custom(model: str, *more: str) -> tuple[str, ...]:
    return ("model=custom", f"model.path={model}", *more)


def extra(folder: str, *overrides: str) -> tuple[str, ...]:
    return ("--config-dir", folder, *overrides)


def guided(guide: str, *more: str) -> tuple[str, ...]:
    return (*custom("mine.py:model", "model.data=mine.py:data"), "guide=custom", f"guide.path={guide}", *more)


GROUPS = "distributed, engine, estimator, experiment, geometry, guide, model, optimizer, partition, preset, scheduler"
RUN_GROUPS = "distributed, engine, estimator, geometry, guide, model, optimizer, partition, scheduler, stop"
OPTIMIZERS = "adafactor, adagrad, adagrad_rmsprop, adam, adamax, adamw, asgd, clipped_adam"
FORMS = "group.key=value"
PATHS = "FILE.py:NAME"

# The command line (split at spaces, unless it is a tuple), and what the message must hold.
MISSPELT = [
    ("optimiser=adam", ["optimiser=adam", "did you mean optimizer?", GROUPS]),
    ("modle=radon", ["modle=radon", "did you mean model", GROUPS]),
    ("Guide=auto_normal", ["Guide=auto_normal", "did you mean guide?"]),
    ("shceduler=constant", ["shceduler=constant", "did you mean scheduler?"]),
    ("optimiser.lr=0.1", ["optimiser.lr=0.1", "did you mean optimizer?"]),
    ("engines.steps=10", ["engines.steps=10", "did you mean engine"]),
    ("lr=0.1", ["lr=0.1", GROUPS]),
    ("steps=100", ["steps=100", GROUPS]),
    ("rreun=run", ["rreun=run", GROUPS]),
    ("optimizer=adan", ["optimizer = 'adan'", "did you mean adam", OPTIMIZERS]),
    ("optimizer=ADAM", ["optimizer = 'ADAM'", "did you mean adam", OPTIMIZERS]),
    ("optimizer=adam.yaml", ["optimizer = 'adam.yaml'", "did you mean adam"]),
    ("optimizer=../guide/auto_normal", ["optimizer", "../guide/auto_normal", OPTIMIZERS]),
    ("guide=autonormal", ["guide = 'autonormal'", "did you mean auto_normal"]),
    (
        "model=radom",
        ["model = 'radom'", "did you mean radon?", "digits_vae, eight_schools, posteriordb, radon, uk_drivers"],
    ),
    ("scheduler=exponental", ["scheduler = 'exponental'", "did you mean exponential"]),
    ("estimator=tarce", ["estimator = 'tarce'", "did you mean trace", "stl, tail_adaptive, trace, trace_enum"]),
    ("partition=singel", ["partition = 'singel'", "did you mean single?"]),
    ("engine=eagre", ["engine = 'eagre'", "did you mean eager?"]),
    ("experiment=nope", ["experiment = 'nope'", "eight_schools_float64, posteriordb/arK"]),
    ("experiment=radon_uranum", ["experiment = 'radon_uranum'", "did you mean radon_uranium?"]),
    ("optimizer=", ["optimizer = ''", OPTIMIZERS]),
    ("optimizer=null", ["optimizer=null", OPTIMIZERS]),
    ("optimizer=7", ["optimizer=7", OPTIMIZERS]),
    ("optimizer=[adam]", ["optimizer=[adam]", OPTIMIZERS]),
    (("optimizer={name: adam}",), ["optimizer={name: adam}", OPTIMIZERS]),
    ("~optimizer", ["~optimizer", OPTIMIZERS]),
    ("~nope", ["~nope", GROUPS]),
    ("optimizer@x=adam", ["optimizer@x=adam", "optimizer"]),
    ("experiment.steps=3", ["experiment.steps=3", "eight_schools_float64, posteriordb/arK"]),
    (
        "optimizer.lrr=1",
        ["optimizer.lrr = 1", "did you mean lr", "betas, centered_variance, clip, clip_norm, eps, lr"],
    ),
    ("+optimizer.foo=1", ["optimizer.foo = 1", "no such key", "weight_decay"]),
    ("++optimizer.foo=1", ["optimizer.foo = 1", "no such key", "weight_decay"]),
    ("~optimizer.foo", ["optimizer.foo"]),
    (
        "optimizer=adam optimizer.clip_norm=1",
        ["optimizer.clip_norm = 1", "amsgrad, betas, clip, decoupled_weight_decay, eps, lr, weight_decay"],
    ),
    ("engine.step=10", ["engine.step = 10", "did you mean steps"]),
    ("guide.init_scal=1", ["guide.init_scal = 1", "did you mean init_scale or init?"]),
    ("model.centred=true", ["model.centred = True", "did you mean centered?", "centered, uranium"]),
    ("estimator.num_particle=2", ["estimator.num_particle = 2", "did you mean num_particles"]),
    ("scheduler.gamma=0.9", ["scheduler.gamma = 0.9", "initial_factor, interval"]),
    ("scheduler=exponential scheduler.gama=0.9", ["scheduler.gama = 0.9", "did you mean gamma?"]),
    ("partition.size=2", ["partition.size = 2", "valid: (none)"]),
    ("optimizer.lr.x=1", ["optimizer.lr.x = 1", "optimizer.lr has no keys"]),
    ("optimizer.betas.first=0.5", ["optimizer.betas.first = 0.5", "optimizer.betas has no keys"]),
    ("optimizer=lbfgs", ["engine.noise = 'fresh'", "must be fixed", "curvature", "noise is frozen", "clipped_adam"]),
    ("optimizer=newton engine=eager", ["engine = 'eager'", "needs frozen noise", "engine.noise=fixed"]),
    ("optimizer=lbfgs engine.noise=sobol", ["engine.noise = 'sobol'", "must be fixed", "clipped_adam"]),
    ("optimizer=lbfgs engine.noise=fixed engine.compile=always", ["engine.compile = 'always'", "auto or never"]),
    ("optimizer=lbfgs engine.noise=fixed scheduler=cosine", ["scheduler = 'cosine'", "must be constant", "step size"]),
    ("optimizer=lbfgs engine.noise=fixed partition=loc_scale", ["partition = 'loc_scale'", "must be single"]),
    ("optimizer=newton engine.noise=fixed stop=auto", ["stop = 'auto'", "must be steps", "ends by itself"]),
    ("optimizer=newton engine.noise=fixed estimator=stl", ["estimator = 'stl'", "derivative of its loss", "use trace"]),
    (
        "optimizer=newton engine.noise=fixed guide=auto_delta optimizer.linear_response=true",
        ["optimizer.linear_response = True", "guide=auto_normal or guide=auto_diagonal_normal"],
    ),
    (
        "optimizer=lbfgs engine.noise=fixed estimator=iwae optimizer.linear_response=true",
        ["optimizer.linear_response = True", "estimator=iwae", "use trace"],
    ),
    ("optimizer=lbfgs engine.noise=fixed optimizer.draws=2000", ["optimizer.max_draws = 1024", "at least draws, 2000"]),
    (
        "partition=groups partition.groups={all:{glob:'*',optimizer:{name:lbfgs}}}",
        ["partition.groups.all.optimizer.name = 'lbfgs'", "moves all parameters together"],
    ),
    (
        "optimizer=lbfgs engine.noise=fixed model=eight_schools guide=auto_real_nvp",
        ["guide = 'auto_real_nvp'", "flexible enough", "no minimum", "optimizer=lbfgs"],
    ),
    ("optimizer.clip.valu=1", ["optimizer.clip.valu = 1", "did you mean value", "global_norm, norm, value"]),
    ("optimizer.clip=1", ["optimizer.clip = 1", "a mapping of global_norm, norm, value"]),
    ("scheduler=cosine scheduler.interval=epoch", ["scheduler.steps_per_epoch", "goes with interval=epoch"]),
    ("scheduler=torch", ["scheduler.scheduler", "CosineAnnealingLR"]),
    (
        "scheduler=torch scheduler.scheduler=CosineLR",
        ["scheduler.scheduler = 'CosineLR'", "no such scheduler of torch", "CosineAnnealingLR"],
    ),
    (
        "scheduler=torch scheduler.scheduler=ReduceLROnPlateau",
        ["scheduler.scheduler = 'ReduceLROnPlateau'", "scheduler=plateau"],
    ),
    (
        "scheduler=torch scheduler.scheduler=StepLR scheduler.arguments={step:3}",
        ["scheduler.arguments = {'step': 3}", "StepLR does not take them", "step"],
    ),
    (
        "scheduler=sequential scheduler.parts=[{name:warmup,steps:0},cosin]",
        ["2 problems", "scheduler.parts.0.steps = 0", "a whole number >= 1", "scheduler.parts.1.name = 'cosin'"],
    ),
    (
        "partition=loc_scale partition.scale.optimizer.lr=-1 partition.loc.optimizer.name=adm",
        [
            "2 problems",
            "partition.scale.optimizer.lr = -1",
            "partition.loc.optimizer.name = 'adm'",
            "did you mean adam",
        ],
    ),
    ("partition=groups", ["partition.groups", "missing"]),
    ("partition=groups partition.groups={a:{}}", ["partition.groups.a.kind", "exactly one of glob, regex and kind"]),
    ("optimizer.name=sgd", ["optimizer.name=sgd", "choose with optimizer=option; valid: adadelta"]),
    ("engine.name=lazy", ["engine.name=lazy", "choose with engine=option; valid: auto, eager, lanes"]),
    ("guide.name=null", ["guide.name", "auto_normal"]),
]

SHAPELESS = [
    ("hello", ["hello", FORMS]),
    ("optimizer", ["optimizer", FORMS]),
    ("optimizer.lr", ["optimizer.lr", FORMS]),
    ("optimizer.lr:0.1", ["optimizer.lr:0.1", FORMS]),
    ("optimizer.lr = 0.1", ["optimizer.lr", FORMS]),
    ("=3", ["=3", GROUPS]),
    (("",), [FORMS]),
    (("  ",), [FORMS]),
    (".lr=1", [".lr=1"]),
    ("optimizer.=1", ["optimizer.=1", FORMS]),
    ("optimizer..lr=1", ["optimizer..lr=1", FORMS]),
    ("optimizer[lr]=1", ["optimizer[lr]=1"]),
    ("optimizer.betas=[0.9,0.99", ["optimizer.betas=[0.9,0.99", FORMS]),
    ("optimizer.betas=0.9]", ["optimizer.betas=0.9]", FORMS]),
    ("optimizer.betas=(0.9,0.99)", ["optimizer.betas=(0.9,0.99)", FORMS]),
    ("model.path='mine.py", ["model.path='mine.py", FORMS]),
    ("engine.device=${", ["engine.device=${", FORMS]),
    ("--lr 3", ["--lr", FORMS]),
    ("--steps=3", ["--steps=3", FORMS]),
    ("-x", ["-x", FORMS]),
    ("--config-path=conf", ["--config-path=conf", FORMS]),
    ("--config-dir", ["--config-dir"]),
    ("--cfg everything", ["--cfg", "everything", "job"]),
    ("--cfg job engine.steps=0", ["engine.steps = 0", "a whole number >= 1"]),
    ("--cfg job optimizer=adan", ["optimizer = 'adan'", "did you mean adam"]),
    ("--multirun=yes", ["--multirun"]),
]

VALUES = [
    ("optimizer.lr=fast", ["optimizer.lr = 'fast'", "a number > 0"]),
    ("optimizer.lr=0.1.2", ["optimizer.lr = '0.1.2'", "a number > 0"]),
    ("optimizer.lr=", ["optimizer.lr = ''", "a number > 0"]),
    ("optimizer.lr='0.1'", ["optimizer.lr = '0.1'", "a number > 0"]),
    ("optimizer.lr=null", ["optimizer.lr = None", "a number > 0"]),
    ("optimizer.lr=true", ["optimizer.lr = True", "a number > 0"]),
    ("optimizer.lr=[0.1]", ["optimizer.lr = [0.1]", "a number > 0"]),
    ("optimizer.lr={a:1}", ["optimizer.lr = {'a': 1}", "a number > 0"]),
    ("optimizer.lr=???", ["optimizer.lr", "a number > 0"]),
    ("optimizer.lr=-1", ["optimizer.lr = -1", "a number > 0"]),
    ("optimizer.lr=0", ["optimizer.lr = 0", "a number > 0"]),
    ("optimizer.lr=nan", ["optimizer.lr = nan", "a number > 0"]),
    ("optimizer.lr=inf", ["optimizer.lr = inf", "a number > 0"]),
    ("optimizer.lr=-inf", ["optimizer.lr = -inf", "a number > 0"]),
    ("optimizer.lr=1e999", ["optimizer.lr = inf", "a number > 0"]),
    (f"optimizer.lr=1{'0' * 400}", ["optimizer.lr = 1", "a number > 0"]),
    ("optimizer.lr=0.1 optimizer.lr=-1", ["optimizer.lr = -1", "a number > 0"]),
    ("optimizer.clip_norm=0", ["optimizer.clip_norm = 0", "a number > 0"]),
    ("optimizer.clip_norm=-1", ["optimizer.clip_norm = -1", "a number > 0"]),
    ("optimizer.weight_decay=-0.1", ["optimizer.weight_decay = -0.1", "a number >= 0"]),
    ("optimizer.weight_decay=inf", ["optimizer.weight_decay = inf", "a number >= 0"]),
    ("optimizer.eps=inf", ["optimizer.eps = inf", "a number >= 0"]),
    ("optimizer.lrd=0", ["optimizer.lrd = 0", "a number > 0"]),
    ("optimizer.betas=0.9", ["optimizer.betas = 0.9", "2 values, each a number >= 0 and < 1"]),
    ("optimizer.betas=[0.9]", ["optimizer.betas = [0.9]", "2 values"]),
    ("optimizer.betas=[]", ["optimizer.betas = []", "2 values"]),
    ("optimizer.betas=[0.9,0.99,0.999]", ["optimizer.betas = [0.9, 0.99, 0.999]", "2 values"]),
    ("optimizer.betas=[0.9,1.0]", ["optimizer.betas = [0.9, 1.0]", ">= 0 and < 1"]),
    ("optimizer.betas=[-0.1,0.9]", ["optimizer.betas = [-0.1, 0.9]", ">= 0 and < 1"]),
    ("optimizer.betas=[0.9,null]", ["optimizer.betas = [0.9, None]", "2 values"]),
    ("optimizer.betas=[a,b]", ["optimizer.betas = ['a', 'b']", "2 values"]),
    ("optimizer.betas=ab", ["optimizer.betas = 'ab'", "2 values"]),
    ("optimizer.betas={0.9:a,0.99:b}", ["optimizer.betas = {0.9: 'a', 0.99: 'b'}", "2 values"]),
    ("optimizer.betas=null", ["optimizer.betas = None", "2 values"]),
    ("optimizer=sgd optimizer.nesterov=true", ["optimizer.nesterov = True", "momentum > 0"]),
    ("engine.steps=0", ["engine.steps = 0", "a whole number >= 1"]),
    ("engine.steps=-5", ["engine.steps = -5", "a whole number >= 1"]),
    ("engine.steps=2.5", ["engine.steps = 2.5", "a whole number >= 1"]),
    ("engine.steps=many", ["engine.steps = 'many'", "a whole number >= 1"]),
    ("engine.steps=1,000", ["engine.steps=1,000", "-m"]),
    ("engine.steps=true", ["engine.steps = True", "a whole number >= 1"]),
    ("engine.steps=null", ["engine.steps = None", "a whole number >= 1"]),
    ("engine.steps=inf", ["engine.steps = inf", "a whole number >= 1"]),
    ("engine.steps=nan", ["engine.steps = nan", "a whole number >= 1"]),
    (f"engine.steps=-1{'0' * 400}", ["engine.steps = -1", "a whole number >= 1"]),
    # More digits than Python reads as a number.
    (f"engine.steps={'9' * 5000}", ["engine.steps"]),
    ("engine.seed=-1", ["engine.seed = -1", ">= 0 and < 4294967296"]),
    ("engine.seed=4294967296", ["engine.seed = 4294967296", "4294967296"]),
    ("engine.seed=1.5", ["engine.seed = 1.5", "a whole number"]),
    ("engine.score_draws=-1", ["engine.score_draws = -1", "a whole number >= 0"]),
    ("engine.log_every=0", ["engine.log_every = 0", "a whole number >= 1"]),
    ("engine.checkpoint_every=-1", ["engine.checkpoint_every = -1", "a whole number >= 0"]),
    ("engine.dtype=float16", ["engine.dtype = 'float16'", "float32, float64"]),
    ("engine.dtype=64", ["engine.dtype = 64", "float32, float64"]),
    ("engine.on_nonfinite=ignore", ["engine.on_nonfinite = 'ignore'", "stop, skip, raise"]),
    ("engine.deterministic=1", ["engine.deterministic = 1", "true or false"]),
    ("engine.device=tpu", ["engine.device = 'tpu'", "cpu, cuda or cuda:N"]),
    ("engine.device=CPU", ["engine.device = 'CPU'", "cpu, cuda or cuda:N"]),
    ("engine.device=cuda:x", ["engine.device = 'cuda:x'", "cpu, cuda or cuda:N"]),
    ("engine.device=cuda:-1", ["engine.device = 'cuda:-1'", "cpu, cuda or cuda:N"]),
    ("engine.device='cuda:²'", ["engine.device = 'cuda:²'", "cpu"]),
    ("engine.device=0", ["engine.device = 0", "must be cpu, cuda or cuda:N"]),
    ("engine.device=null", ["engine.device = None", "must be cpu, cuda or cuda:N"]),
    ("engine.device=cuda:99", ["engine.device = 'cuda:99'", "cpu"]),
    pytest.param("engine.device=cuda", ["engine.device = 'cuda'", "0 CUDA devices", "cpu"], marks=WITHOUT_GPU),
    ("model.centered=1", ["model.centered = 1", "true or false"]),
    ("model.centered=yes", ["model.centered = 'yes'", "true or false"]),
    ("guide.init=zero", ["guide.init = 'zero'", "median"]),
    ("guide.init_scale=0", ["guide.init_scale = 0", "a number > 0"]),
    ("guide.init_scale=inf", ["guide.init_scale = inf", "a number > 0"]),
    ("guide=auto_iaf_normal guide.hidden_dim=0", ["guide.hidden_dim = 0", "a whole number >= 1"]),
    ("guide=auto_iaf_normal guide.hidden_dim=2", ["guide: ", "Hidden dimension must not be less"]),
    ("estimator.num_particles=0", ["estimator.num_particles = 0", "a whole number >= 1"]),
    ("scheduler=exponential scheduler.gamma=2", ["scheduler.gamma = 2", "a number > 0 and <= 1"]),
    ("optimizer.lr=${nope}", ["optimizer.lr", "nope"]),
    ("optimizer.lr=${engine.step}", ["optimizer.lr", "engine.step"]),
    ("optimizer.lr=${optimizer.lr}", ["optimizer.lr"]),
    ("optimizer.lr=${no_resolver:1}", ["optimizer.lr", "no_resolver"]),
    ("optimizer.lr=${oc.env:HOME}", ["optimizer.lr", "a number > 0"]),
]

SWEEPS = [
    ("optimizer.lr=0.1,0.2", ["optimizer.lr=0.1,0.2", "-m"]),
    ("optimizer=adam,sgd", ["optimizer=adam,sgd", "-m"]),
    ("optimizer.lr=choice(0.1,0.2)", ["optimizer.lr=choice(0.1,0.2)", "-m"]),
    ("engine.seed=range(0,3)", ["engine.seed=range(0,3)", "-m"]),
    ("-m optimizer.lr=0.1,-1", ["optimizer.lr = -1", "a number > 0"]),
    ("-m optimizer.lr=0.1,fast", ["optimizer.lr = 'fast'", "a number > 0"]),
    ("-m optimizer.lr=0.1,-1,-2", ["optimizer.lr = -1", "optimizer.lr = -2"]),
    ("-m optimizer=adam,adan", ["optimizer = 'adan'", "did you mean adam"]),
    ("-m optimizer=clipped_adam,adam optimizer.clip_norm=1", ["optimizer.clip_norm = 1", "amsgrad, betas"]),
    ("-m optimizer.lr=0.1,0.2 engine.steps=0", ["engine.steps = 0", "a whole number >= 1"]),
    ("-m optimizer.lrr=0.1,0.2", ["optimizer.lrr = 0.1", "did you mean lr"]),
    ("-m optimiser.lr=0.1,0.2", ["optimiser.lr", "did you mean optimizer?"]),
    ("-m engine.seed=range(-1,2)", ["engine.seed = -1", "a whole number >= 0"]),
    ("-m engine.seed=range(0,3,0)", ["engine.seed=range(0,3,0)"]),
    ("-m optimizer.lr=interval(0.1,1)", ["optimizer.lr=interval(0.1,1)", "sweep.n_trials=100"]),
    ("-m optimizer=glob(zzz*)", ["optimizer=glob(zzz*)", OPTIMIZERS]),
    ("-m optimizer.lr=0.1,", ["optimizer.lr=0.1,", FORMS]),
    ("-m hello", ["hello", FORMS]),
    # Each value is good in some combination, but not in all.
    (
        "-m optimizer=sgd optimizer.nesterov=false,true optimizer.momentum=0.9,0",
        ["optimizer.nesterov = True", "momentum > 0"],
    ),
    ("-m engine.device=cpu,cuda:99", ["engine.device = 'cuda:99'", "cpu"]),
    (
        ("-m", "model=custom", "model.data=mine.py:data", "model.path=mine.py:model,mine.py:modle"),
        ["model.path = 'mine.py:modle'", "did you mean model"],
    ),
    (("-m", *custom("mine.py:model", "model.data=mine.py:data,mine.py:short")), ["does not run on its data"]),
    ("-m resume=run", ["resume", "-m"]),
    ("-m optimizer.lr=0.1,0.2 hydra.sweep.dir=run", ["run holds a run already"]),
    ("-m optimizer.lr=0.1,0.2 hydra.sweep.dir=notes.txt", ["hydra.sweep.dir", "notes.txt is a file"]),
    ("-m optimizer.lr=0.1,0.2 hydra/sweeper=basic", ["hydra/sweeper = 'basic'", "sweepvi's own"]),
    ("hydra.mode=MULTIRUN", ["hydra.mode = 'MULTIRUN'", "-m"]),
    # The space.
    ("-m", ["sweep: nothing is searched", "sweep=quick"]),
    ("-m optimizer=adam", ["sweep: nothing is searched"]),
    ("-m optimizer=schedule_free_prodigy sweep.n_trials=9", ["sweep: nothing is searched"]),
    ("-m optimizer.lrr=interval(0,1) sweep.n_trials=9", ["optimizer.lrr = 0.0", "did you mean lr"]),
    ("-m optimizer=adam,sgd optimizer.etta=1,2", ["optimizer.etta = 1", "no such key", "valid: amsgrad, betas"]),
    ("-m optimizer.lr=tag(log,interval(0,1)) sweep.n_trials=9", ["optimizer.lr=tag(log,interval(0,1))", "bounds > 0"]),
    ("-m optimizer.lr=tag(log,interval(-1,1)) sweep.n_trials=9", ["optimizer.lr=tag", "bounds > 0, not -1"]),
    ("-m optimizer.lr=tag(lgo,interval(1,2)) sweep.n_trials=9", ["no such tag: lgo; valid: log"]),
    ("-m optimizer.lr=tag(log,choice(1,2))", ["optimizer.lr=tag(log,choice(1,2))", "between two bounds"]),
    ("-m optimizer.lr=interval(1,0.1) sweep.n_trials=9", ["optimizer.lr=interval(1,0.1)", "is empty"]),
    ("-m optimizer.lr=interval(0.1,inf) sweep.n_trials=9", ["optimizer.lr=interval(0.1,inf)", "finite bounds"]),
    ("-m optimizer.lr=interval(-1,1) sweep.n_trials=9", ["optimizer.lr = -1.0", "> 0", "searched is interval(-1,1)"]),
    ("-m engine.steps=interval(10,99) sweep.n_trials=9", ["engine.steps", "a whole number", "int(interval(10,99))"]),
    ("-m engine.steps=interval(10,99) sweep.sampler=grid sweep.n_trials=9", ["engine.steps=interval", "sampler=grid"]),
    ("-m engine.seed=range(5,5)", ["engine.seed=range(5,5)", "is empty"]),
    ("-m engine.seed=range(0,9) engine.seed=1,2", ["engine.seed=1,2", "searched twice"]),
    (
        "-m engine.seed=range(1000) optimizer.lr=range(1,1001)",
        ["1,000,000 combinations", "sweep.max_grid=1000000", "sweep.n_trials"],
    ),
    ("-m engine.seed=range(10) sweep.max_grid=9", ["10 combinations", "sweep.max_grid=10"]),
    ("-m engine.restarts=4 engine.seed=0,1", ["engine.restarts = 4", "sweep.seeds"]),
    ("-m engine.restarts=1,2", ["engine.restarts = '1,2'", "sweep.seeds"]),
    ("-m optimizer.name=adam,sgd", ["optimizer.name=adam,sgd", "choose with optimizer=a,b"]),
    ("-m experiment.lr=1,2", ["experiment.lr=1,2", "choose with experiment=a,b"]),
    ("-m optimizer@x=adam,sgd", ["optimizer@x=adam,sgd", "a group keeps its place"]),
    ("-m hydra.job.name=a,b", ["hydra.job.name=a,b", "Hydra's own"]),
    ("-m optimizer.lr.x=1,2", ["optimizer.lr has no keys"]),
    # The settings.
    ("sweep.n_trials=5", ["sweep.n_trials=5", "add -m"]),
    ("sweep=quick", ["sweep=quick", "add -m"]),
    ("workers.cpus=2", ["workers.cpus=2", "add -m"]),
    ("-m sweep=qiuck", ["sweep = 'qiuck'", "did you mean quick?", "default, estimators, learning_rate"]),
    ("-m sweep=quick sweep.trials=5", ["sweep.trials = 5", "did you mean n_trials?", "sampler"]),
    ("-m sweep=quick sweep.n_trials=5,6", ["sweep.n_trials=5,6", "takes one value"]),
    ("-m sweep=quick sweep.n_trials=0", ["sweep.n_trials = 0", "a whole number >= 1"]),
    ("-m sweep=quick sweep.sampler=tpee", ["sweep.sampler = 'tpee'", "tpe, gp, cmaes, random, qmc, nsga2, grid"]),
    ("-m sweep=quick sweep.pruner=asha", ["sweep.pruner = 'asha'", "hyperband, successive_halving"]),
    ("-m optimizer.lr=0.1,0.2 sweep.pruner=wilcoxon", ["sweep.pruner", "set sweep.seeds to 4 or more"]),
    ("-m sweep=quick sweep.objective=[]", ["sweep.objective", "at least one of elbo"]),
    ("-m sweep=quick sweep.objective=[elbo,elbo]", ["sweep.objective", "twice"]),
    ("-m sweep=quick sweep.objective=[loss]", ["sweep.objective = ['loss']", "elbo, k_hat, seconds, heldout"]),
    ("-m sweep=quick sweep.storage=nowhere", ["sweep.storage", "postgresql://host/name", "journal:PATH"]),
    ("-m sweep=quick sweep.storage='postgresql://me:pw@host/x'", ["sweep.storage: holds a password", "env:NAME"]),
    ("-m sweep=quick sweep.enqueue=[{optimizer.eps:1}]", ["sweep.enqueue.0.optimizer.eps = 1", "is not searched"]),
    ("-m sweep=quick sweep.enqueue=[{optimizer:sgd}]", ["sweep.enqueue.0.optimizer = 'sgd'", "is not in the space"]),
    ("-m sweep=quick workers.gpus=all", ["workers.gpus = 'all'", "auto"]),
    ("-m sweep=quick workers.per_device=0 workers.lanse=3", ["2 problems", "workers.per_device = 0", "mean lanes"]),
    (("-m", "sweep.space={optimiser: 'a,b'}"), ["sweep.space.optimiser = 'a,b'", "did you mean optimizer?"]),
    (("-m", "sweep.space={optimizer.lr: 0.1}"), ["sweep.space", "text"]),
    (("-m", "sweep.space={optimizer.lr: '0.1'}"), ["sweep.space.optimizer.lr = '0.1'", "searches nothing"]),
    # Files.
    (("-m", *extra("c_search", "optimizer=unknown", "sweep.n_trials=9")), ["optimizer.lrr", "did you mean lr"]),
    (("-m", *extra("c_search", "optimizer=outside", "sweep.n_trials=9")), ["optimizer.lr = -1.0", "interval(-1, 1)"]),
    (
        ("-m", *extra("c_search", "optimizer=fixed", "sweep.n_trials=9")),
        ["optimizer.search.lr = 0.1", "must be text", "optimizer.search.eps = '1e-8'", "searches nothing"],
    ),
    (("-m", *extra("c_search", "optimizer=log", "sweep.n_trials=9")), ["optimizer.search.lr", "bounds > 0"]),
    (("-m", *extra("c_search", "optimizer=list", "sweep.n_trials=9")), ["optimizer.search", "must be a mapping"]),
    (
        ("-m", *extra("c_search", "sweep=code", *custom("mine.py:model"))[:-1]),
        ["sweep.space.model.path", "a file alone never runs code"],
    ),
    (("-m", *extra("c_search_hydra", "sweep=hydra")), ["hydra.yaml: space.hydra.job.name", "Hydra's own"]),
    (("-m", *extra("c_search", "sweep=strange", "engine.seed=0,1")), ["sweep.trials = 3", "did you mean n_trials?"]),
]

PYTHON = [
    ("model=custom", ["model.path", "missing", PATHS]),
    ("guide=custom", ["guide.path", "missing", PATHS]),
    ("model.path=mine.py:model", ["model.path = 'mine.py:model'", "model=custom"]),
    (custom("null"), ["model.path = None", "text"]),
    (custom(""), ["model.path = ''", "text"]),
    (custom("7"), ["model.path = 7", "text"]),
    (custom("[mine.py:model]"), ["model.path", "text"]),
    (custom("mine.py"), ["model.path = 'mine.py'", PATHS]),
    (custom("mine.py:"), ["model.path = 'mine.py:'", PATHS]),
    (custom(":model"), ["model.path = ':model'", PATHS]),
    (custom("absent.py:model"), ["model.path = 'absent.py:model'", "no file absent.py"]),
    (custom("absent:model"), ["model.path = 'absent:model'", "cannot import 'absent'", PATHS]),
    (custom("notes.txt:model"), ["model.path = 'notes.txt:model'", PATHS]),
    (custom("mine.py:modle"), ["model.path = 'mine.py:modle'", "did you mean model"]),
    (custom("mine.py:Silent.run"), ["model.path = 'mine.py:Silent.run'", "no such name"]),
    (custom("empty.py:model"), ["model.path = 'empty.py:model'", "valid: (none)"]),
    (custom("syntax.py:model"), ["model.path = 'syntax.py:model'", "SyntaxError", "syntax.py"]),
    (custom("raises.py:model"), ["model.path = 'raises.py:model'", "ValueError: bad day", "raises.py:2"]),
    (custom("quits.py:model"), ["model.path = 'quits.py:model'", "SystemExit"]),
    (custom("imports.py:model"), ["model.path = 'imports.py:model'", "cannot import 'no_such_package'"]),
    (custom("gone.py:model"), ["model.path = 'gone.py:model'", "the data are gone"]),
    (custom("reads.py:model"), ["model.path = 'reads.py:model'", "absent.csv"]),
    (custom("mine.py:number"), ["model.path = 'mine.py:number'", "not callable"]),
    (custom("mine.py:Silent"), ["model.path = 'mine.py:Silent'", "not callable"]),
    (custom("mine.py:Needs"), ["model.path = 'mine.py:Needs'", "size"]),
    (custom("mine.py:quits"), ["model", "SystemExit"]),
    (custom("mine.py:nothing_latent"), ["guide", "no parameters"]),
    (custom("mine.py:switch"), ["on", "discrete"]),
    (custom("mine.py:twice"), ["model", "mu"]),
    (custom("mine.py:counts"), ["model", "missing 1 required positional argument: 'y'"]),
    (custom("mine.py:model", "model.data=mine.py:dta"), ["model.data = 'mine.py:dta'", "did you mean data"]),
    (custom("mine.py:model", "model.data=mine.csv"), ["model.data = 'mine.csv'", PATHS]),
    (custom("mine.py:model", "model.data=7"), ["model.data = 7", "text"]),
    (
        custom("mine.py:model", "model.data=mine.py:data_fails"),
        ["model.data", "the sensor was off", "mine.py:"],
    ),
    (custom("mine.py:model", "model.data=mine.py:data_absent"), ["model.data", "readings.csv"]),
    (custom("mine.py:model", "model.data=mine.py:quits"), ["model.data", "SystemExit"]),
    (custom("mine.py:model", "model.data=mine.py:needs"), ["model.data", "size"]),
    (custom("mine.py:model", "model.data=mine.py:short"), ["model", "does not run on its data", "5", "4"]),
    (custom("mine.py:model", "model.data=mine.py:flat"), ["model", "does not run on its data", "2"]),
    (custom("mine.py:model", "model.data=mine.py:misnamed"), ["model", "unexpected keyword argument 'x'"]),
    (custom("mine.py:model", "model.data=mine.py:text"), ["model", "does not run on its data"]),
    (custom("mine.py:counts", "model.data=mine.py:negative"), ["model", "support", "-1"]),
    (guided("mine.py:only_muu"), ["guide.path = 'mine.py:only_muu'", "did you mean only_mu"]),
    (guided("absent.py:guide"), ["guide.path = 'absent.py:guide'", "no file absent.py"]),
    (guided("raises.py:guide"), ["guide.path = 'raises.py:guide'", "bad day"]),
    (guided("mine.py:number"), ["guide.path = 'mine.py:number'", "not callable"]),
    (guided("mine.py:Silent"), ["guide.path = 'mine.py:Silent'", "not callable"]),
    (guided("mine.py:Needs"), ["guide.path = 'mine.py:Needs'", "size"]),
    (guided("mine.py:no_parameters"), ["guide", "no parameters"]),
    (guided("mine.py:too_wide"), ["guide", "Shape mismatch inside plate"]),
    (guided("mine.py:with_more"), ["guide", "nu"]),
    (guided("mine.py:guide_fails"), ["guide", "not finished yet", "mine.py:"]),
    ((*custom("mine.py:two"), "guide=custom", "guide.path=mine.py:only_mu"), ["guide", "sigma"]),
    ("guide=custom guide.path=mine.py:only_mu", ["guide"]),
]

RUNS = [
    ("rerun=", ["rerun=", "rerun=DIR"]),
    ("rerun", ["rerun", "rerun=DIR"]),
    ("resume=", ["resume=", "resume=DIR"]),
    ("rerun=nope", ["nope", "no run there"]),
    ("resume=nope", ["nope", "no run there"]),
    ("rerun=no_config", ["no_config", "config.yaml"]),
    ("resume=no_config", ["no_config", "config.yaml"]),
    ("rerun=config_is_folder", ["config_is_folder", "config.yaml"]),
    ("resume=run/config.yaml", ["resume", "run/config.yaml", "folder"]),
    ("resume=run rerun=run", ["rerun, resume", "one of them"]),
    ("resume=run optimizer.lr=0.5", ["optimizer.lr = 0.5", "0.02", "rerun="]),
    ("resume=run optimizer=sgd", ["optimizer.name = 'sgd'", "clipped_adam"]),
    ("resume=run model=radon", ["model.name = 'radon'", "eight_schools"]),
    ("resume=run engine.seed=3", ["engine.seed = 3", "0"]),
    ("resume=run engine.steps=0", ["engine.steps = 0", "a whole number >= 1"]),
    ("resume=other_run", ["resume", "belongs to another configuration"]),
    ("resume=truncated", ["resume", "truncated", "damaged or only half written"]),
    ("resume=emptied", ["resume", "emptied", "damaged or only half written"]),
    ("resume=scrambled", ["resume", "scrambled", "damaged"]),
    ("resume=garbage", ["resume", "garbage", "damaged"]),
    ("resume=foreign", ["resume", "foreign", "not a checkpoint"]),
    ("resume=headless", ["resume", "headless", "damaged"]),
    ("hydra.run.dir=run", ["run holds a run already", "resume it, or choose another folder"]),
    ("rerun=run hydra.run.dir=run", ["run holds a run already"]),
    ("rerun=run optimizer.lr=-1", ["optimizer.lr = -1", "a number > 0"]),
    ("rerun=run optimizer.lrr=1", ["optimizer.lrr = 1", "did you mean lr"]),
    ("rerun=notes.txt", ["notes.txt", "just text", RUN_GROUPS]),
    ("rerun=latin1.yaml", ["latin1.yaml", "not readable"]),
    ("rerun=rerun/target.yaml", ["target.yaml", "optimizer.lr", "_target_ is refused"]),
    ("rerun=rerun/env.yaml", ["env.yaml", "engine.device", "refused"]),
    ("rerun=rerun/interpolated.yaml", ["interpolated.yaml", "optimizer.lr", "refused"]),
    ("rerun=rerun/group.yaml", ["group.yaml: optimiser", "did you mean optimizer?"]),
    ("rerun=rerun/hydra.yaml", ["hydra.yaml: hydra", RUN_GROUPS]),
    ("rerun=rerun/option.yaml", ["optimizer", "'adan'", "did you mean adam"]),
    ("rerun=rerun/key.yaml", ["optimizer.lrr = 0.1", "did you mean lr"]),
    ("rerun=rerun/dotted_key.yaml", ["lr=1,x", "no such key", "amsgrad, betas"]),
    ("rerun=rerun/value.yaml", ["optimizer.lr = 'fast'", "a number > 0", "engine.steps = 0"]),
    ("rerun=rerun/nan.yaml", ["optimizer.lr = nan", "a number > 0"]),
    ("rerun=rerun/quote.yaml", ["engine.device", "it's", "cpu, cuda or cuda:N"]),
    ("rerun=rerun/date.yaml", ["optimizer.lr", "2020", "a number > 0"]),
    ("rerun=rerun/nameless.yaml", ["nameless.yaml: optimizer", "a name"]),
    ("rerun=rerun/scalar.yaml", ["scalar.yaml: optimizer", "mapping"]),
    ("rerun=rerun/null_name.yaml", ["null_name.yaml: optimizer", OPTIMIZERS]),
    ("rerun=rerun/list_name.yaml", ["list_name.yaml: optimizer", OPTIMIZERS]),
    ("rerun=rerun/list.yaml", ["list.yaml", "is not the configuration of a run"]),
    ("rerun=rerun/empty.yaml", ["empty.yaml", "is not the configuration of a run"]),
    ("rerun=rerun/text.yaml", ["text.yaml", "just text", RUN_GROUPS]),
    ("rerun=rerun/broken.yaml", ["broken.yaml", "not readable as YAML"]),
    ("rerun=rerun/tab.yaml", ["tab.yaml", "not readable as YAML"]),
    ("rerun=rerun/twice.yaml", ["twice.yaml", "optimizer"]),
    ("rerun=rerun/object.yaml", ["object.yaml", "not readable as YAML"]),
    ("rerun=rerun/loop.yaml", ["loop.yaml"]),
    ("rerun=rerun/code.yaml", ["model.path", "missing", PATHS]),
    ("rerun=rerun/python.yaml", ["python.yaml: model", "Python object"]),
]


FOLDERS = [
    (extra("nope"), ["--config-dir = 'nope'", "no such folder"]),
    (extra("notes.txt"), ["--config-dir = 'notes.txt'", "no such folder"]),
    (extra("c_broken"), ["c_broken/optimizer/mine.yaml", "not readable as YAML"]),
    (extra("c_broken", "optimizer=mine"), ["c_broken/optimizer/mine.yaml", "not readable as YAML"]),
    (extra("c_target"), ["c_target/optimizer/mine.yaml: lr._target_", "refused"]),
    (extra("c_nested_target", "experiment=x"), ["optimizer.betas[0]._target_", "refused"]),
    (extra("c_callbacks", "experiment=x"), ["x.yaml: hydra", "callbacks", "hydra.run and hydra.sweep only"]),
    (
        extra("c_job_logging", "experiment=x"),
        ["x.yaml: hydra", "job_logging", "hydra.run and hydra.sweep only"],
    ),
    (extra("c_dotted", "experiment=x"), ["x.yaml: hydra.launcher", "Hydra's own configuration"]),
    (extra("c_launcher", "experiment=x"), ["x.yaml: defaults[0]", "Hydra's own configuration"]),
    (extra("c_package", "experiment=x"), ["x.yaml", "Hydra's own configuration"]),
    (extra("c_subpackage", "experiment=x"), ["x.yaml", "Hydra's own configuration"]),
    (extra("c_relocated", "experiment=x"), ["x.yaml: defaults[0]", "Hydra's own configuration"]),
    (extra("c_hydra_group", "experiment=x"), ["c_hydra_group", "Hydra's own configuration"]),
    (extra("c_logging", "hydra/job_logging=mine"), ["c_logging/hydra", "Hydra's own configuration"]),
    (extra("c_env", "experiment=x"), ["x.yaml: engine.device", "must not read the environment"]),
    (extra("c_env_hidden", "experiment=x"), ["x.yaml: hydra", "refused"]),
    (extra("c_loop", "experiment=x"), ["x.yaml"]),
    (extra("c_object", "experiment=x"), ["x.yaml", "not readable as YAML"]),
    (extra("c_path", "experiment=x"), ["model.path", "model.data", "give it on the command line"]),
    (
        extra("c_path", "experiment=x", "model.path=mine.py:model"),
        ["model.data", "give it on the command line"],
    ),
    (extra("c_path", "model=mine"), ["model.path = 'mine.py:model'", "give it on the command line"]),
    (extra("c_path", "guide=mine"), ["guide.path = 'mine.py:only_mu'", "give it on the command line"]),
    (extra("c_path", "guide=mien"), ["guide = 'mien'", "did you mean mine?"]),
    (extra("c_option", "optimizer=mine"), ["optimizer.name = 'adan'", "did you mean adam"]),
    (
        extra("c_option", "optimizer=range"),
        ["optimizer.lr = -5", "a number > 0", "optimizer.betas = [0.9, 1.0]"],
    ),
    (
        extra("c_option", "optimizer=key"),
        ["optimizer.learning_rate = 0.1", "amsgrad, betas, clip, decoupled_weight_decay, eps, lr"],
    ),
    (extra("c_option", "optimizer=nameless"), ["optimizer", "a name", "clipped_adam"]),
    (extra("c_option", "optimizer=empty"), ["optimizer", "a name", "clipped_adam"]),
    (extra("c_option", "optimizer=list"), ["optimizer = ['lr', 0.1]", "a name"]),
    (extra("c_option", "optimizer=required"), ["optimizer.lr", "missing", "a number > 0"]),
    (extra("c_option", "optimizer=wrong_ending"), ["optimizer = 'wrong_ending'", "valid: "]),
    (extra("c_option", "experiment=nulled"), ["optimizer = None", "a name", "clipped_adam"]),
    (extra("c_option", "experiment=group"), ["optimiser", "did you mean optimizer?"]),
    (extra("c_option", "experiment=flat"), ["lr = 0.1", "optimizer, partition, scheduler"]),
    (extra("c_option", "experiment=absent"), ["optimizer", "adan", "clipped_adam"]),
    (extra("c_option", "experiment=unpackaged"), ["experiment", "@package _global_"]),
]

HYDRA = [
    ("hydra.nonsense=1", ["hydra.nonsense"]),
    ("hydra/launcher=nope", ["hydra/launcher", "nope", "basic"]),
    ("hydra/nonsense=1", ["hydra/nonsense"]),
    ("hydra.mode=NOPE", ["hydra.mode", "NOPE", "MULTIRUN"]),
    ("hydra.run.dir=null", ["hydra.run.dir"]),
    ("hydra.run.dir=${nope}", ["hydra.run.dir", "nope"]),
    ("hydra.run.dir=notes.txt", ["hydra.run.dir", "notes.txt"]),
    ("hydra.run.dir=notes.txt/run", ["hydra.run.dir", "notes.txt/run"]),
]

SEVERAL = [
    (
        "optimizer=adan modle=radon lr=3 engine.steps=0 guide.init_scal=1 model.centered=2 hello",
        [
            "7 problems",
            "optimizer = 'adan'",
            "modle=radon",
            "lr=3",
            "engine.steps = 0",
            "guide.init_scal = 1",
            "model.centered = 2",
            "hello",
        ],
    ),
    (
        "optimizer.lr=-1 optimizer.clip_norm=0 engine.steps=0",
        ["3 problems", "optimizer.lr = -1", "optimizer.clip_norm = 0", "engine.steps = 0"],
    ),
    ("model=custom guide=custom engine.seed=-1", ["3 problems", "model.path", "guide.path", "engine.seed"]),
    ("engine.device=tpu engine.steps=0", ["2 problems", "engine.device", "engine.steps"]),
    ("--lr 3 engine.steps=0", ["--lr", "engine.steps = 0"]),
    ("rerun=nope engine.steps=0", ["nope", "no run there", "engine.steps = 0"]),
    (extra("nope", "engine.steps=0"), ["no such folder", "engine.steps = 0"]),
    ("hydra.nonsense=1 engine.steps=0", ["hydra.nonsense", "engine.steps = 0"]),
    ("optimizer.lr=${nope} engine.steps=0", ["optimizer.lr", "engine.steps = 0"]),
    ("engine.device=cuda:99 model=custom model.path=absent.py:model", ["engine.device", "absent.py"]),
    (
        (
            "model=custom",
            "model.path=absent.py:a",
            "model.data=gone.py:b",
            "guide=custom",
            "guide.path=lost.py:c",
        ),
        ["model.path", "model.data", "guide.path"],
    ),
    ("resume=run optimizer.lr=0.5 engine.seed=3", ["2 problems", "optimizer.lr = 0.5", "engine.seed = 3"]),
    (extra("c_callbacks", "optimizer=adan"), ["x.yaml: hydra", "callbacks", "optimizer = 'adan'"]),
]

TABLES = (MISSPELT, SHAPELESS, VALUES, SWEEPS, PYTHON, RUNS, FOLDERS, HYDRA, SEVERAL)


def words(line: str | tuple[str, ...]) -> list[str]:
    return line.split() if isinstance(line, str) else list(line)


def rows():
    for table in TABLES:
        for row in table:
            line, says, marks = (*row.values, row.marks) if hasattr(row, "marks") else (*row, ())
            yield pytest.param(words(line), says, marks=marks, id=" ".join(words(line))[:60] or "(empty)")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with every file that the rows name, and with runs, whole and damaged."""
    folder = tmp_path_factory.mktemp("template")
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="latin-1" if "latin1" in name else "utf-8")
    fit = ["model=eight_schools", "engine.steps=20", "engine.score_draws=5", "-q"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*fit, "hydra.run.dir=run"]) == 0
        assert main([*fit, "optimizer.lr=0.5", "hydra.run.dir=run2"]) == 0
    (checkpoint,) = (folder / "run").glob("checkpoint*")
    good, other = checkpoint.read_bytes(), (folder / "run2" / checkpoint.name).read_bytes()
    shutil.rmtree(folder / "run2")
    damaged = {
        "other_run": other,
        "truncated": good[: len(good) // 2],
        "emptied": b"",
        "scrambled": good[:-3] + bytes(255 - byte for byte in good[-3:]),
        "garbage": b"not a checkpoint at all" * 20,
        "foreign": save({"weights": torch.zeros(2)}),
        "headless": save({"weights": torch.zeros(2)}, {"format": FORMAT}),
    }
    for name, content in damaged.items():
        shutil.copytree(folder / "run", folder / name)
        (folder / name / checkpoint.name).write_bytes(content)
    return folder


@pytest.fixture
def workspace(template, tmp_path, monkeypatch):
    """The working directory, with what :func:`template` holds; afterwards nothing of it is imported."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    # Python's own cache of the user's file is no output of ours.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def no_fit(monkeypatch):
    """Input that is let through fails at once, and does not run 2000 steps first."""

    def run(*_, **__):
        pytest.fail("a fit was started")

    monkeypatch.setattr(api, "run", run)
    monkeypatch.setattr(running, "run", run)
    # Nor are workers started, which would wait for a plan.
    monkeypatch.setattr(Crew, "early", lambda _: Crew())


def content(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def check_refused(arguments, says, folder, capsys):
    before = content(folder)
    status = main(arguments)
    out, err = capsys.readouterr()
    absent = [fragment for fragment in says if fragment not in err]
    assert not absent, f"{absent} not in the message:\n{err}"
    assert status == 2, err
    assert out == ""
    assert "Traceback" not in err
    after = content(folder)
    assert after.keys() - before.keys() == set()
    assert after == before


@pytest.mark.parametrize(("arguments", "says"), list(rows()))
def test_refused(arguments, says, workspace, no_fit, capsys):
    check_refused(arguments, says, workspace, capsys)


def out_of_range(spec):
    key = spec.key
    ends = [(key.gt, 0), (key.ge, -1), (key.lt, 0), (key.le, 1)]
    return [f"{bound + step}" for bound, step in ends if bound is not None]


def listed(spec, value):
    return f"[{value},{value}]" if get_origin(spec.type) is tuple and not spec.key.component else value


def numeric(spec):
    kinds = {*get_args(spec.type), spec.type}
    return get_origin(spec.type) not in (Literal, Mapping) and bool({int, float} & kinds)


def of_no_type(spec):
    """A value that is none for the key, whatever else it could be."""
    return "{a:{b:1}}" if numeric(spec) or spec.type in (bool, str) or get_origin(spec.type) is Literal else "3"


def component_rows():
    """For each component: all keys of a wrong type at once, all numbers NaN, all out of range one way or another."""
    for row in registry.rows():
        keys = [(name, spec) for name, spec in flat_keys(row.specs()) if name != "path"]
        numbers = [(name, spec) for name, spec in keys if numeric(spec)]
        kinds = {
            "type": [(name, spec, of_no_type(spec)) for name, spec in keys if row.name != "custom"],
            "nan": [(name, spec, listed(spec, "nan")) for name, spec in numbers],
        }
        for place in range(2):
            kinds[f"range-{place}"] = [
                (name, spec, listed(spec, out_of_range(spec)[place]))
                for name, spec in numbers
                if len(out_of_range(spec)) > place
            ]
        yield from ((row, kind, bad) for kind, bad in kinds.items() if bad)


@pytest.mark.parametrize(
    ("row", "bad"),
    [pytest.param(row, bad, id=f"{row.group}={row.name}-{kind}") for row, kind, bad in component_rows()],
)
def test_every_declared_key(row, bad, tmp_path, monkeypatch, no_fit, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [f"{row.group}={row.name}", *(f"{row.group}.{name}={value}" for name, _, value in bad)]
    one = [(name, spec) for name, spec, _ in bad if spec.key.component and get_origin(spec.type) is not tuple]
    says = [f"{row.group}.{name} = " for name, _, _ in bad] + ["a mapping with a name, one of" for _ in one]
    says += [spec.expects() for name, spec, _ in bad if (name, spec) not in one]
    check_refused(arguments, says, tmp_path, capsys)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["optimizer=adan", "engine.steps=0"], ["2 problems", "did you mean adam", "a whole number >= 1"]),
        (["--lr", "3"], ["--lr", FORMS]),
        (["-m", "optimizer.lr=0.1,-1"], ["optimizer.lr = -1", "a number > 0"]),
        (["model=custom", "model.path=quits.py:model"], ["model.path", "SystemExit"]),
        (["model=custom", "model.path=raises.py:model"], ["model.path", "bad day"]),
    ],
    ids=" ".join,
)
def test_exit_status_of_the_process(arguments, says, template, tmp_path):
    for name in ("quits.py", "raises.py"):
        shutil.copy(template / name, tmp_path)
    before = content(tmp_path)
    done = subprocess.run(
        [started(), "-m", "sweepvi", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert [fragment for fragment in says if fragment not in done.stderr] == [], done.stderr
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert content(tmp_path) == before
