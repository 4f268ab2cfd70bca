"""Torch's random functions on noise that is handed in: the same distributions, under vmap, and gradients."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn, tensor
from torch.func import grad, vmap

from sweepvi.engine.lanes.gamma import TRIES, GammaOfNoise
from sweepvi.engine.lanes.noise import NoiseLayout
from sweepvi.engine.lanes.randomness import Given, Recorded
from sweepvi.private import transformable

LANES = 8000
OWN = 20_000


def subsample():
    with pyro.plate("rows", 50, subsample_size=5) as rows:
        return rows


# what draws, how often one call of torch's own sampler has to be repeated
DISTRIBUTIONS = {
    "normal": lambda: dist.Normal(tensor([0.0, 1.0]), 2.0),
    "uniform": lambda: dist.Uniform(tensor([0.0, 1.0]), 3.0),
    "exponential": lambda: dist.Exponential(tensor([1.0, 2.0])),
    "laplace": lambda: dist.Laplace(tensor([0.0, 1.0]), 2.0),
    "cauchy": lambda: dist.Cauchy(tensor([0.0, 1.0]), 2.0),
    "half_cauchy": lambda: dist.HalfCauchy(tensor([1.0, 2.0])),
    "log_normal": lambda: dist.LogNormal(tensor([0.0, 1.0]), 0.5),
    "gumbel": lambda: dist.Gumbel(tensor([0.0, 1.0]), 2.0),
    "weibull": lambda: dist.Weibull(tensor([1.0, 2.0]), 2.0),
    "logistic": lambda: dist.Logistic(tensor([0.0, 1.0]), 1.0),
    "bernoulli": lambda: dist.Bernoulli(tensor([0.3, 0.7])),
    "geometric": lambda: dist.Geometric(tensor([0.3, 0.5])),
    "categorical": lambda: dist.Categorical(tensor([[0.2, 0.3, 0.5], [0.0, 0.2, 0.8]])),
    "one_hot_categorical": lambda: dist.OneHotCategorical(tensor([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])),
    "gamma": lambda: dist.Gamma(tensor([0.2, 0.9, 1.0, 2.5, 30.0]), 2.0),
    "inverse_gamma": lambda: dist.InverseGamma(tensor([3.0, 4.0]), 1.0),
    "beta": lambda: dist.Beta(tensor([0.5, 2.0]), tensor([1.0, 3.0])),
    "dirichlet": lambda: dist.Dirichlet(tensor([0.5, 2.0, 3.0])),
    "chi2": lambda: dist.Chi2(tensor([3.0, 5.0])),
    "student_t": lambda: dist.StudentT(tensor([3.0, 5.0])),
    "multivariate_normal": lambda: dist.MultivariateNormal(torch.zeros(2), tensor([[2.0, 0.5], [0.5, 1.0]])),
    "low_rank_normal": lambda: dist.LowRankMultivariateNormal(torch.zeros(3), torch.ones(3, 1), torch.ones(3)),
    "lkj_cholesky": lambda: dist.LKJCholesky(3, 1.0),
    "relaxed_bernoulli": lambda: dist.RelaxedBernoulli(tensor(0.5), tensor([0.3, 0.5])),
    "mixture": lambda: dist.MixtureSameFamily(
        dist.Categorical(tensor([0.3, 0.7])), dist.Normal(tensor([0.0, 4.0]), 1.0)
    ),
}
FUNCTIONS = {
    "rand": lambda: torch.rand(2, 3),
    "rand_size": lambda: torch.rand(size=(2,)),
    "randn": lambda: torch.randn((2,), dtype=torch.float64),
    "randn_like": lambda: torch.randn_like(torch.zeros(2)),
    "rand_like": lambda: torch.rand_like(torch.zeros(2)),
    "normal_of_size": lambda: torch.normal(1.0, 2.0, (2,)),
    "normal_of_tensors": lambda: torch.normal(tensor([0.0, 1.0]), tensor([[1.0], [2.0]])),
    "uniform_between": lambda: torch.empty(2).uniform_(-1, 2),
    "log_normal_in_place": lambda: torch.empty(2).log_normal_(0.5, 0.3),
    "geometric_in_place": lambda: torch.empty(2).geometric_(0.4),
    "bernoulli_in_place": lambda: torch.empty(2).bernoulli_(0.3),
    "without_replacement": lambda: torch.multinomial(tensor([0.2, 0.3, 0.5]), 2),
    "with_replacement": lambda: torch.multinomial(tensor([[0.2, 0.8]]), 3, replacement=True),
    "permutation": lambda: torch.randperm(4),
    "integers": lambda: torch.randint(2, 7, (2,)),
    "integers_below": lambda: torch.randint(3, (2,)),
    "dropout": lambda: nn.functional.dropout(torch.ones(4), 0.3),
    "dropout_module": lambda: nn.Dropout(0.7)(torch.ones(4)),
    "subsample": subsample,
}


def drawn(name):
    if name in FUNCTIONS:
        return FUNCTIONS[name]()
    found = DISTRIBUTIONS[name]()
    return found.rsample() if found.has_rsample else found.sample()


def of_lanes(program, seed=0):
    """What a program returns in every lane, on noise by counter; its list of draws is recorded first."""
    state = torch.get_rng_state()
    with transformable(), Recorded(0) as recorded:
        program()
    assert torch.equal(torch.get_rng_state(), state), "torch's own generator has moved"
    layout = NoiseLayout(recorded.draws)
    noise = layout.filled(seed + torch.arange(LANES), torch.tensor([0]))

    def lane(rows):
        with transformable(), Given(layout.of_lane(rows)) as given:
            value = program()
        given.demand_all_taken()
        return value

    return vmap(lane, randomness="error")({sort: row[0] for sort, row in noise.items()})


@pytest.mark.parametrize("name", [*DISTRIBUTIONS, *FUNCTIONS])
def test_draws_have_torchs_distribution(name):
    ours = of_lanes(lambda: drawn(name))
    torch.manual_seed(1)
    if name in FUNCTIONS:
        theirs = torch.stack([drawn(name) for _ in range(OWN // 5)])
    else:
        theirs = DISTRIBUTIONS[name]().sample((OWN,))
    assert ours.dtype == theirs.dtype
    assert ours.shape[1:] == theirs.shape[1:]
    for one, other in zip(ours.reshape(LANES, -1).T, theirs.reshape(len(theirs), -1).T, strict=True):
        assert distance(one, other) < 2.2 * math.sqrt(1 / len(one) + 1 / len(other))  # chance: 1 in 8,000


def distance(one, other):
    """Kolmogorov and Smirnov's, of two samples."""
    values = torch.cat([one, other]).unique()
    shares = [torch.searchsorted(sample.sort().values, values, right=True) / len(sample) for sample in (one, other)]
    return (shares[0] - shares[1]).abs().max().item()


@pytest.mark.parametrize("concentration", [0.1, 0.5, 1.0, 2.5, 30.0])
def test_the_gradient_of_a_gamma_draw(concentration):
    """Of E x and of E x², which are a and a + a²."""
    torch.manual_seed(0)
    shape = torch.full((200_000,), concentration, dtype=torch.float64)
    noise = (
        torch.randn(*shape.shape, TRIES).double(),
        torch.rand(*shape.shape, TRIES).double(),
        torch.rand(shape.shape).double(),
    )
    for power, exact in ((1, 1.0), (2, 1 + 2 * concentration)):
        found = grad(lambda a, power=power: (GammaOfNoise.apply(a, *noise) ** power).sum())(shape)
        assert abs(found.mean() - exact) < 4 * found.std() / math.sqrt(len(shape))


@pytest.mark.parametrize(
    "program", [lambda: torch.poisson(tensor([3.0])), lambda: nn.functional.gumbel_softmax(tensor([0.0, 1.0]))]
)
def test_what_is_not_known_moves_torchs_generator(program):
    """So a capture that watches it notices."""
    state = torch.get_rng_state()
    with Recorded(0) as recorded:
        program()
    assert recorded.draws == []
    assert not torch.equal(torch.get_rng_state(), state)


def test_a_program_that_draws_something_else_is_noticed():
    with Given([torch.zeros(2)]) as given, pytest.raises(LookupError, match=r"draws normal \(3,\)"):
        torch.randn(3)
    with Given([torch.zeros(2)]) as given:
        pass
    with pytest.raises(LookupError, match="less than before"):
        given.demand_all_taken()
    with Given([]), pytest.raises(LookupError, match="where nothing was drawn"):
        torch.randn(3)
