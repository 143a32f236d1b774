"""Diffusion of tokens against enumeration: the bound, the flow, the network that sees itself."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import logsumexp

import likejax as lj
from likejax.bijections.ode import Trace
from likejax.models import VDM, BoundSettings, TextVDMConfig, VDMConfig, VectorVDMConfig
from likejax.models.diffusion.denoiser import Hints
from likejax.models.diffusion.embedding import LevelEmbedding, RealEmbedding
from likejax.models.diffusion.process import alpha, over_event, sigma
from likejax.models.diffusion.schedule import FixedSchedule
from likejax.models.diffusion.tokens import TokenEmbedding
from likejax.nn.modules import replace
from tests.registry import perturbed

ANGLES = np.array([0.0, 2.2, 4.0])
TABLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], -1)
VECTORS = np.sqrt(2) * TABLE
PAIRS = np.array([[0.30, 0.05, 0.05], [0.02, 0.08, 0.20], [0.15, 0.10, 0.05]])
LOGITS = BoundSettings(prediction="logits")
TINY = TextVDMConfig(length=3, vocabulary=5, embedding=4, width=8, blocks=1, heads=2)


def of_vectors() -> TokenEmbedding:
    """Three tokens on a circle."""
    embedding = TokenEmbedding(3, 2, rngs=nnx.Rngs(0))
    # of any length: the embedding brings them to one
    return replace(embedding, table=nnx.Param(jnp.asarray(TABLE * [[1.0], [3.0], [0.5]])))


class BestOfTokens(nnx.Module):
    """The best denoiser of tokens of known joint probabilities, by enumeration of all sequences."""

    def __init__(self, joint):
        self.log_joint = np.log(joint)

    def __call__(self, z, gamma, condition):
        a, s = (over_event(f(gamma), z) for f in (alpha, sigma))
        evidence = (a / s**2 * z) @ jnp.asarray(VECTORS).T
        length = self.log_joint.ndim
        total = jnp.broadcast_to(self.log_joint, (*gamma.shape, *self.log_joint.shape))
        for i in range(length):
            shape = [1] * length
            shape[i] = 3
            total = total + evidence[..., i, :].reshape(*gamma.shape, *shape)
        posterior = []
        for i in range(length):
            others = tuple(gamma.ndim + j for j in range(length) if j != i)
            posterior.append(jax.nn.logsumexp(total, axis=others))
        return jnp.stack(posterior, -2) - evidence


def of_tokens(joint, ends) -> VDM:
    shape = (np.ndim(joint),)
    parts = (of_vectors(), FixedSchedule(*ends), BestOfTokens(joint))
    return VDM(shape, *parts, settings=LOGITS)


def last_divergence(joint, gamma: float, nodes: int = 12) -> float:
    """``KL(q(z_1) || N(0, I))`` of pairs of tokens, by quadrature over four numbers."""
    a, s = (float(f(jnp.asarray(gamma))) for f in (alpha, sigma))
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    noise = np.stack(np.meshgrid(*[points] * 4, indexing="ij"), -1).reshape(-1, 4)
    weight = np.prod(np.meshgrid(*[weights / weights.sum()] * 4, indexing="ij"), axis=0).reshape(-1)
    pairs = list(itertools.product(range(3), repeat=2))
    means = a * np.stack([VECTORS[list(pair)].reshape(-1) for pair in pairs])
    mass = np.array([joint[pair] for pair in pairs])
    total = 0.0
    for mean, probability in zip(means, mass, strict=True):
        z = mean + s * noise
        squares = np.square(z[:, None] - means).sum(-1) / s**2
        log_q = logsumexp(-0.5 * squares, axis=1, b=mass) - 4 * np.log(s)
        total += probability * weight @ (log_q + 0.5 * np.square(z).sum(-1))
    return total


def test_the_bound_of_the_best_denoiser():
    """By I-MMSE it is the entropy and ``KL(q(z_1) || N)``, which the noise of the end sets."""
    ends = (-6.0, 0.0)
    expected = -(PAIRS * np.log(PAIRS)).sum() + last_divergence(PAIRS, ends[1])
    assert last_divergence(PAIRS, ends[1]) > 0.05
    count = 3_000
    pairs = np.array(list(itertools.product(range(3), repeat=2)), np.uint8)
    draws = of_tokens(PAIRS, ends).log_prob(np.repeat(pairs, count, axis=0), key=0)
    draws = np.asarray(draws, np.float64).reshape(9, count)
    mass = PAIRS.reshape(-1)
    error = np.sqrt(np.sum(mass**2 * draws.var(1) / count))
    assert error < 0.01
    assert -mass @ draws.mean(1) == pytest.approx(expected, abs=4 * error)


def test_the_flow_of_the_best_denoiser_has_the_masses():
    pmf = np.array([0.2, 0.5, 0.3])
    flow = of_tokens(pmf, (-4.0, 6.0)).as_flow("variational", trace=Trace())
    assert flow.kind is lj.Kind.BOUND
    x = np.repeat(np.arange(3, dtype=np.uint8), 100)[:, None]
    draws = np.asarray(flow.log_prob(x, key=0), np.float64).reshape(3, 100)
    masses = np.exp(logsumexp(draws, axis=1) - np.log(100))
    np.testing.assert_allclose(masses, pmf, atol=0.01)
    assert masses.sum() == pytest.approx(1, abs=0.003)


def test_logits_of_levels_have_the_bound_of_their_noise():
    """Levels are tokens on a line: the logits of known probabilities are their logarithms."""
    pmf = np.array([0.1, 0.2, 0.3, 0.4])
    schedule, embedding = FixedSchedule(-9.0, 5.0), LevelEmbedding(4)
    log_pmf = jnp.asarray(np.log(pmf))

    def logits(z, gamma, condition):
        return jnp.broadcast_to(log_pmf, (*z.shape, 4))

    def noise(z, gamma, condition):
        return by_logits.predict(z, gamma).noise

    by_logits = VDM((2,), embedding, schedule, logits, settings=LOGITS)
    by_noise = VDM((2,), embedding, schedule, noise)
    x = np.array([[0, 1], [2, 3]], np.uint8)
    a, b = (density.log_prob(x, key=0) for density in (by_logits, by_noise))
    np.testing.assert_allclose(a, b, rtol=1e-3)
    z, gamma = jnp.asarray([[0.3, -0.8]]), jnp.asarray([-0.5])
    centers = np.array([-0.75, -0.25, 0.25, 0.75])
    a, s = (float(f(gamma)[0]) for f in (alpha, sigma))
    posterior = pmf * np.exp(-0.5 * (np.asarray(z)[..., None] - a * centers) ** 2 / s**2)
    posterior /= posterior.sum(-1, keepdims=True)
    np.testing.assert_allclose(by_logits.predict(z, gamma).data, posterior @ centers, rtol=1e-5)


def test_tokens_and_their_likelihood():
    embedding = of_vectors()
    x = jnp.asarray([2, 0, 1, 1])
    np.testing.assert_allclose(embedding.embed(x), VECTORS[np.asarray(x)], rtol=1e-6)
    u, gamma = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32), -0.7
    squares = np.square(u[:, None] - VECTORS).sum(-1) / np.exp(gamma)
    expected = -0.5 * squares - logsumexp(-0.5 * squares, axis=1, keepdims=True)
    point, noise = jnp.asarray(u), jnp.asarray(gamma)
    assert float(embedding.log_prob(x, point, noise)) == pytest.approx(
        expected[np.arange(4), x].sum(), rel=1e-5
    )
    np.testing.assert_array_equal(embedding.nearest(point), squares.argmin(1))
    assert float(embedding.log_prob(jnp.asarray([0, 3, 1, 1]), point, noise)) == -np.inf
    assert float(embedding.log_prob(jnp.asarray([0, -1, 1, 1]), point, noise)) == -np.inf
    many = jnp.broadcast_to(point[0], (20_000, 2))
    drawn = embedding.sample(jax.random.key(0), many, noise)
    assert drawn.dtype == jnp.uint8
    frequencies = np.bincount(drawn, minlength=3) / len(drawn)
    np.testing.assert_allclose(frequencies, np.exp(expected[0]), atol=0.015)


def tiny_network():
    """A network with nothing at zero, noisy points of it and the logits that they give alone."""
    density = perturbed(lj.build(TINY, key=0))
    z, gamma = jax.random.normal(jax.random.key(1), (1, 3, 4)), jnp.zeros(1)
    evidence = density.embedding.logits(z / alpha(gamma)[:, None, None], gamma[:, None, None])
    return density.denoiser, z, gamma, evidence


def without_estimate(network):
    layer = replace(network.estimate, kernel=nnx.Param(jnp.zeros((1, 1, 5, 8))))
    return replace(network, estimate=layer)


def test_the_network_sees_its_first_estimate():
    """In evaluation always, in training in a quarter of the cases."""
    network, z, gamma, evidence = tiny_network()
    call = jax.jit(lambda network, key: network(z, gamma, None, Hints(key=key, evidence=evidence)))
    seen, blind = call(network, None), call(without_estimate(network), None)
    assert np.abs(seen - blind).max() > 0.01
    keys = jax.random.split(jax.random.key(0), 400)
    outputs = np.asarray(jax.jit(jax.vmap(lambda key: call(network, key)))(keys))
    saw, saw_not = (
        np.abs(outputs - np.asarray(each)).max((1, 2, 3)) < 1e-4 for each in (seen, blind)
    )
    assert (saw ^ saw_not).all()
    assert 0.17 < saw.mean() < 0.33
    with pytest.raises(ValueError, match=r"predict\(z, gamma\)` gives it"):
        network(z, gamma)


def test_the_first_estimate_is_differentiated_where_the_trace_needs_it():
    """The network is one function of ``z`` for the ODE; in training no gradient takes that way."""
    with jax.enable_x64(True):
        network, z, gamma, evidence = tiny_network()
        key = next(
            key
            for key in jax.random.split(jax.random.key(0), 40)
            if jax.random.bernoulli(key, 0.25, (1,))
        )
        z, tangent = z.astype(float), jnp.ones(z.shape)
        network = jax.tree.map(lambda leaf: leaf.astype(float), network)

        def output(z, key=None):
            return network(z, gamma.astype(float), None, Hints(key=key, evidence=evidence))

        step = 1e-5
        expected = (output(z + step * tangent) - output(z - step * tangent)) / (2 * step)
        found, stopped = (
            jax.jvp(lambda z, k=k: output(z, k), (z,), (tangent,)) for k in (None, key)
        )
    np.testing.assert_allclose(found[1], expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found[0], stopped[0], rtol=1e-12)
    assert np.abs(found[1] - stopped[1]).max() > 1e-3


def test_dropout_and_conditions_reach_the_network():
    config = TextVDMConfig(
        length=3, vocabulary=5, embedding=4, width=8, blocks=1, heads=2, dropout=0.5, num_classes=2
    )
    network = perturbed(lj.build(config, key=0)).denoiser
    _, z, gamma, evidence = tiny_network()
    call = jax.jit(lambda label, hints: network(z, gamma, label, hints))
    hints = Hints(evidence=evidence)
    labels = [call(jnp.full(1, label), hints) for label in range(2)]
    assert np.abs(labels[0] - labels[1]).max() > 1e-3
    without = hints._replace(present=jnp.zeros(1, bool))
    np.testing.assert_allclose(call(jnp.zeros(1, int), without), call(None, hints), atol=1e-6)
    dropped = [call(None, hints._replace(key=jax.random.key(i))) for i in range(2)]
    assert np.abs(dropped[0] - dropped[1]).max() > 1e-3


def test_one_table_serves_the_density_and_its_flow():
    density = lj.build(TINY, key=0)
    flow = density.as_flow("variational")
    shape = density.embedding.table[...].shape
    for each in (density, flow):
        assert [leaf.shape for leaf in jax.tree.leaves(each)].count(shape) == 1
    moved = perturbed(flow)
    assert np.abs(moved.embedding.table[...] - density.embedding.table[...]).max() > 0.01


def test_what_does_not_fit_is_refused():
    density = lj.build(TINY, key=0)
    for dequantization in ("truncated_normal", "uniform"):
        with pytest.raises(ValueError, match="expected dequantization='variational'"):
            density.as_flow(dequantization)
    with pytest.raises(ValueError, match="for data that are no integers"):
        VDM((2,), RealEmbedding(2), FixedSchedule(-9.0, 5.0), lambda *_: 0, settings=LOGITS)
    for kind in (VDMConfig, VectorVDMConfig):
        with pytest.raises(ValueError, match="prediction='noise' or 'velocity', which is what"):
            kind(bound=LOGITS)
    with pytest.raises(ValueError, match="prediction='logits', which is what its network"):
        TextVDMConfig(bound=BoundSettings())
    with pytest.raises(ValueError, match="heads that divide the width 128, got 3"):
        TextVDMConfig(heads=3)
    with pytest.raises(ValueError, match=r"even TextVDMConfig\.width"):
        TextVDMConfig(width=9, heads=3)
    with pytest.raises(ValueError, match="text has no orientations"):
        TextVDMConfig(bound=BoundSettings(prediction="logits", augmentation="orientations"))


def test_the_flow_of_a_text_sees_the_noise_of_its_model():
    """The query for scores reads logits as the model does."""
    model = lj.build(lj.models.TextVDMConfig(length=4, vocabulary=5, width=16, blocks=1), key=0)
    x = np.zeros((2, 4), np.uint8)
    gamma = jnp.array([0.5, 1.0])
    own, of_flow = (each.diffusion(x, key=0) for each in (model, model.as_flow("variational")))
    z = own.point + 0.1
    np.testing.assert_allclose(of_flow.noise_at(z, gamma), own.noise_at(z, gamma), atol=1e-5)
