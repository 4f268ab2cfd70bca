"""Torch's random functions on noise that is handed in: the same distributions, under vmap, and gradients."""

from __future__ import annotations

import contextlib
import inspect
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn, tensor
from torch.func import grad, vmap

from sweepvi.engine.lanes import counts
from sweepvi.engine.lanes.gamma import TRIES, GammaOfNoise
from sweepvi.engine.lanes.noise import NoiseLayout
from sweepvi.engine.lanes.randomness import Given, Recorded
from sweepvi.private import standard_gamma_grad, transformable

LANES = 8000
OWN = 20_000


def subsample():
    with pyro.plate("rows", 50, subsample_size=5) as rows:
        return rows


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
    "low_rank_multivariate_normal": lambda: dist.LowRankMultivariateNormal(
        torch.zeros(3), torch.ones(3, 1), torch.ones(3)
    ),
    "lkj_cholesky": lambda: dist.LKJCholesky(3, 1.0),
    "relaxed_bernoulli": lambda: dist.RelaxedBernoulli(tensor(0.5), tensor([0.3, 0.5])),
    "mixture_same_family": lambda: dist.MixtureSameFamily(
        dist.Categorical(tensor([0.3, 0.7])), dist.Normal(tensor([0.0, 4.0]), 1.0)
    ),
    "affine_beta": lambda: dist.AffineBeta(tensor([1.0, 2.0]), 3.0, 1.0, 2.0),
    "asymmetric_laplace": lambda: dist.AsymmetricLaplace(tensor([0.0, 1.0]), 1.0, 2.0),
    "beta_binomial": lambda: dist.BetaBinomial(tensor([1.0, 2.0]), 3.0, 12),
    "binomial": lambda: dist.Binomial(tensor([5.0, 20.0, 100.0]), tensor([0.9, 0.2, 0.4])),
    "continuous_bernoulli": lambda: dist.ContinuousBernoulli(tensor([0.2, 0.7])),
    "dirichlet_multinomial": lambda: dist.DirichletMultinomial(tensor([0.5, 2.0, 3.0]), 7),
    "discrete_hmm": lambda: dist.DiscreteHMM(
        tensor([0.0, 1.0]), tensor([[0.0, 1.0], [2.0, 0.0]]), dist.Normal(tensor([0.0, 4.0]), 1.0), duration=3
    ),
    "expanded_distribution": lambda: dist.ExpandedDistribution(dist.Normal(0.0, 1.0), (2,)),
    "extended_beta_binomial": lambda: dist.ExtendedBetaBinomial(tensor([1.0, 2.0]), 3.0, 12),
    "extended_binomial": lambda: dist.ExtendedBinomial(tensor([5.0, 20.0]), tensor([0.9, 0.2])),
    "fisher_snedecor": lambda: dist.FisherSnedecor(tensor([3.0, 5.0]), 6.0),
    "folded_distribution": lambda: dist.FoldedDistribution(dist.Normal(tensor([0.0, 1.0]), 1.0)),
    "gamma_poisson": lambda: dist.GammaPoisson(tensor([0.5, 20.0]), 1.0),
    "gaussian_hmm": lambda: dist.GaussianHMM(
        dist.MultivariateNormal(torch.zeros(1), torch.eye(1)),
        torch.eye(1),
        dist.MultivariateNormal(torch.zeros(1), torch.eye(1)),
        torch.eye(1),
        dist.MultivariateNormal(torch.zeros(1), torch.eye(1)),
        duration=3,
    ),
    "generalized_pareto": lambda: dist.GeneralizedPareto(tensor([0.0, 1.0]), 1.0, 0.2),
    "half_normal": lambda: dist.HalfNormal(tensor([1.0, 2.0])),
    "independent": lambda: dist.Independent(dist.Normal(tensor([0.0, 1.0]), 1.0), 1),
    "kumaraswamy": lambda: dist.Kumaraswamy(tensor([0.5, 2.0]), 3.0),
    "linear_hmm": lambda: dist.LinearHMM(
        dist.StudentT(4.0, torch.zeros(1), 1.0).to_event(1),
        torch.eye(1),
        dist.StudentT(4.0, torch.zeros(1), 1.0).to_event(1),
        torch.eye(1),
        dist.Normal(torch.zeros(1), 1.0).to_event(1),
        duration=3,
    ),
    "lkj": lambda: dist.LKJ(3, 2.0),
    "logistic_normal": lambda: dist.LogisticNormal(torch.zeros(2), torch.ones(2)),
    "masked_distribution": lambda: dist.MaskedDistribution(dist.Normal(tensor([0.0, 1.0]), 1.0), tensor([True, False])),
    "masked_mixture": lambda: dist.MaskedMixture(
        tensor([True, False]), dist.Normal(torch.zeros(2), 1.0), dist.Normal(torch.zeros(2), 3.0)
    ),
    "multinomial": lambda: dist.Multinomial(7, tensor([0.2, 0.3, 0.5])),
    "multivariate_student_t": lambda: dist.MultivariateStudentT(5.0, torch.zeros(2), torch.eye(2)),
    "nan_masked_multivariate_normal": lambda: dist.NanMaskedMultivariateNormal(torch.zeros(2), torch.eye(2)),
    "nan_masked_normal": lambda: dist.NanMaskedNormal(tensor([0.0, 1.0]), tensor(2.0)),
    "negative_binomial": lambda: dist.NegativeBinomial(tensor([2.0, 30.0]), 0.5),
    "one_hot_categorical_straight_through": lambda: dist.OneHotCategoricalStraightThrough(tensor([0.2, 0.3, 0.5])),
    "ordered_logistic": lambda: dist.OrderedLogistic(tensor([0.0, 1.0]), tensor([-1.0, 1.0])),
    "pareto": lambda: dist.Pareto(tensor([1.0, 2.0]), 3.0),
    "poisson": lambda: dist.Poisson(tensor([0.5, 9.0, 40.0])),
    "relaxed_one_hot_categorical": lambda: dist.RelaxedOneHotCategorical(tensor(0.5), tensor([0.3, 0.5, 0.2])),
    "skew_logistic": lambda: dist.SkewLogistic(tensor([0.0, 1.0]), 1.0, 2.0),
    "soft_asymmetric_laplace": lambda: dist.SoftAsymmetricLaplace(tensor([0.0, 1.0]), 1.0, 2.0),
    "soft_laplace": lambda: dist.SoftLaplace(tensor([0.0, 1.0]), 1.0),
    "transformed_distribution": lambda: dist.TransformedDistribution(
        dist.Normal(tensor([0.0, 1.0]), 1.0), [dist.transforms.SigmoidTransform()]
    ),
    "truncated_polya_gamma": lambda: dist.TruncatedPolyaGamma(torch.ones(2)),
    "zero_inflated_distribution": lambda: dist.ZeroInflatedDistribution(dist.Poisson(tensor([3.0])), gate=tensor(0.3)),
    "zero_inflated_negative_binomial": lambda: dist.ZeroInflatedNegativeBinomial(
        tensor([5.0]), probs=tensor(0.5), gate=tensor(0.3)
    ),
    "zero_inflated_poisson": lambda: dist.ZeroInflatedPoisson(tensor([3.0]), gate=tensor(0.3)),
    "empirical": lambda: dist.Empirical(tensor([0.0, 1.0, 2.0]), tensor([0.0, 1.0, 0.5])),
    "sine_skewed": lambda: dist.SineSkewed(dist.Normal(torch.zeros(1), 1.0).to_event(1), tensor([0.5])),
    "independent_hmm": lambda: dist.IndependentHMM(DISTRIBUTIONS["gaussian_hmm"]().expand([1])),
    "one_one_matching": lambda: dist.OneOneMatching(torch.zeros(3, 3)),
    "one_two_matching": lambda: dist.OneTwoMatching(torch.zeros(4, 2)),
}
# A program that draws from one of these is not captured: an error says so, or torch's own generator has moved.
REFUSED = {
    "avf_multivariate_normal": lambda: dist.AVFMultivariateNormal(torch.zeros(2), torch.eye(2), torch.ones(2, 1, 2)),
    "gaussian_scale_mixture": lambda: dist.GaussianScaleMixture(torch.ones(2), torch.zeros(2), tensor([1.0, 3.0])),
    "mixture_of_diag_normals": lambda: dist.MixtureOfDiagNormals(
        tensor([[0.0, 1.0], [4.0, 5.0]]), torch.ones(2, 2), torch.zeros(2)
    ),
    "mixture_of_diag_normals_shared_covariance": lambda: dist.MixtureOfDiagNormalsSharedCovariance(
        tensor([[0.0, 1.0], [4.0, 5.0]]), torch.ones(2), torch.zeros(2)
    ),
    "omt_multivariate_normal": lambda: dist.OMTMultivariateNormal(torch.zeros(2), torch.eye(2)),
    "projected_normal": lambda: dist.ProjectedNormal(tensor([1.0, 2.0])),
    "relaxed_bernoulli_straight_through": lambda: dist.RelaxedBernoulliStraightThrough(tensor(0.5), tensor([0.3, 0.5])),
    "relaxed_one_hot_categorical_straight_through": lambda: dist.RelaxedOneHotCategoricalStraightThrough(
        tensor(0.5), tensor([0.3, 0.5, 0.2])
    ),
    "stable": lambda: dist.Stable(tensor([1.5, 0.7]), 0.3),
    "stable_with_log_prob": lambda: dist.StableWithLogProb(tensor([1.5, 0.7]), 0.3),
    "wishart": lambda: dist.Wishart(tensor(4.0), torch.eye(2)),
    "coalescent_times": lambda: dist.CoalescentTimes(tensor([0.0, 0.2, 0.5])),
    "rejector": lambda: dist.Rejector(dist.Normal(tensor([0.0]), 1.0), lambda x: -x.abs(), tensor([-0.5])),
    "sine_bivariate_von_mises": lambda: dist.SineBivariateVonMises(*torch.ones(4), tensor(0.2)),
    "von_mises": lambda: dist.VonMises(tensor([0.0, 1.0]), 2.0),
    "spanning_tree": lambda: dist.SpanningTree(torch.zeros(3)),
    "coalescent_times_with_rate": lambda: dist.CoalescentTimesWithRate(tensor([0.0, 0.2, 0.5]), torch.ones(3)),
}
# Classes that draw nothing at random, cannot be sampled, are abstract, or are old names of others.
WITHOUT_DRAWS = {"Delta", "Unit", "ImproperUniform"}
WITHOUT_SAMPLER = {"GammaGaussianHMM", "GaussianMRF", "GroupedNormalNormal", "LogNormalNegativeBinomial", "VonMises3D"}
NOT_THEMSELVES = {"Distribution", "TorchDistribution", "ExponentialFamily", "LKJCorrCholesky"}
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
    "torch_poisson": lambda: torch.poisson(tensor([0.0, 3.0, 30.0])),
    "torch_binomial": lambda: torch.binomial(tensor([0.0, 9.0, 50.0]), tensor([0.5, 0.9, 0.5])),
    "gumbel_softmax": lambda: nn.functional.gumbel_softmax(tensor([0.0, 1.0]), 0.5),
    "gumbel_softmax_hard": lambda: nn.functional.gumbel_softmax(tensor([0.0, 1.0]), 0.5, hard=True),
}


def drawn(name):
    if name in FUNCTIONS:
        return FUNCTIONS[name]()
    found = {**DISTRIBUTIONS, **REFUSED}[name]()
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


def test_every_distribution_has_its_place_in_a_table():
    classes = {
        name
        for module in (torch.distributions, dist)
        for name in module.__all__
        if inspect.isclass(getattr(module, name))
        and issubclass(getattr(module, name), torch.distributions.Distribution)
    }
    told = {name.replace("_", "") for name in (*DISTRIBUTIONS, *REFUSED)}
    apart = WITHOUT_DRAWS | WITHOUT_SAMPLER | NOT_THEMSELVES
    assert {name for name in classes - apart if name.lower() not in told} == set()
    assert apart <= classes


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


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_draws_have_the_exact_mean_and_distribution(name):
    """Where the class tells them."""
    exact = DISTRIBUTIONS[name]()
    ours = of_lanes(lambda: drawn(name), seed=2**35).double()
    with contextlib.suppress(NotImplementedError, AttributeError):
        mean, variance = exact.mean.double(), exact.variance.double()
        error = (ours.mean(0) - mean).abs() / (variance / LANES).sqrt()
        assert not (error[torch.isfinite(variance) & (variance > 0)] > 4.5).any()
    with contextlib.suppress(NotImplementedError, AttributeError):
        shares = exact.cdf(ours.to(torch.float32)).double().reshape(LANES, -1).sort(0).values
        if len(torch.unique(ours)) > LANES // 2:  # of discrete ones, shares are not uniform
            ranks = (torch.arange(LANES, dtype=torch.float64) + 0.5)[:, None] / LANES
            assert (shares - ranks).abs().max() < 2.2 / math.sqrt(LANES)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:Singular sample", "ignore:There is a performance drop")
def test_refused_draws_are_noticed(name):
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        of_lanes(lambda: drawn(name))


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


@pytest.mark.parametrize("concentration", [0.1, 0.9, 1.0, 3.0, 100.0])
def test_the_gradient_of_a_gamma_draw_is_torchs(concentration):
    """Of each draw, under vmap too: torch's own implicit gradient, called by hand."""
    shape = torch.full((50,), concentration, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    sizes = ((50, TRIES), (50, TRIES), (50,))
    normal, *uniforms = (torch.rand(size, generator=generator, dtype=torch.float64) for size in sizes)
    noise = (torch.special.ndtri(normal), *uniforms)
    value = GammaOfNoise.apply(shape, *noise)
    expected = standard_gamma_grad(shape, value)
    together = grad(lambda a: GammaOfNoise.apply(a, *noise).sum())(shape)
    in_lanes = vmap(grad(GammaOfNoise.apply))(shape, *noise)
    assert torch.equal(together, expected)
    assert torch.equal(in_lanes, expected)


COUNTS = [(0.3, None), (9.9, None), (10.1, None), (1e5, None), (7, 0.8), (99, 0.1), (101, 0.1), (5000, 0.7)]


@pytest.mark.parametrize(("mean", "probability"), COUNTS)
def test_counts_have_exact_distributions(mean, probability):
    size = 30_000
    uniforms = torch.rand(size, 2, counts.TRIES, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    at = torch.full((size,), mean, dtype=torch.float64)
    k = torch.arange(0, 2 * mean + 60, dtype=torch.float64)
    if probability is None:
        found = counts.poisson(at, uniforms)
        weights = dist.Poisson(at[0]).log_prob(k).exp()
    else:
        found = counts.binomial(at, torch.full_like(at, probability), uniforms)
        k = k[: mean + 1]
        weights = dist.Binomial(at[0], torch.tensor(probability, dtype=torch.float64)).log_prob(k).exp()
    shares = torch.bincount(found.long(), minlength=len(k)).cumsum(0) / size
    assert (shares - weights.cumsum(0)).abs().max() < 1.95 / math.sqrt(size)


def test_counts_at_the_ends():
    uniforms = torch.full((5, 2, counts.TRIES), 1 - 2.0**-53, dtype=torch.float64)
    total = tensor([0.0, 3.0, 3.0, 3.0, 500.0]).double()
    found = counts.binomial(total, tensor([0.5, 0.0, 1.0, 0.5, 1.0]).double(), uniforms)
    assert found.tolist() == [0, 0, 3, 3, 500]
    assert counts.poisson(torch.zeros(5).double(), uniforms).tolist() == [0] * 5


@pytest.mark.parametrize("layer", [nn.Dropout2d(0.5), nn.AlphaDropout(0.5), nn.RReLU()], ids=str)
def test_what_is_not_known_moves_torchs_generator(layer):
    """So a capture that watches it notices."""
    state = torch.get_rng_state()
    with Recorded(0) as recorded:
        layer(-torch.ones(2, 3, 4, 4))
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
