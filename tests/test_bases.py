"""Bases of flows: Student's t and mixtures of normals."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from flax import nnx

import likejax as lj
from likejax.distributions import standard_normal_log_prob, student_t_log_prob
from likejax.models import GaussianMixture, StudentT
from tests.registry import DENSITIES, examples_of, perturbed, rngs

KEY = jax.random.key(3)


def test_student_t_against_scipy():
    degrees = np.array([1.0, 1.5, 4.0, 15.9, 16.1, 40.0, 1e3, 1e6], np.float32)[:, None]
    x = np.array([0.0, 0.3, -2.0, 9.0, 1e3, -1e6], np.float32)[None]
    grid = np.broadcast_arrays(x, degrees)
    values = student_t_log_prob(jnp.asarray(grid[0]), jnp.asarray(grid[1]))
    expected = scipy.stats.t.logpdf(grid[0].astype(np.float64), grid[1].astype(np.float64))
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=2e-6)
    slopes = jax.vmap(jax.grad(student_t_log_prob, (0, 1)))(
        *(jnp.asarray(each.reshape(-1)) for each in grid)
    )
    assert all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("degrees", ["each", "one"])
def test_a_student_t_base(degrees):
    base = StudentT(3, degrees=degrees, initial=4.0)
    np.testing.assert_allclose(base.degrees, 4.0, rtol=1e-6)
    assert lj.count_parameters(base) == {"each": 3, "one": 1}[degrees]
    z = jnp.array([0.5, -3.0, 20.0])
    np.testing.assert_allclose(base.log_prob(z), scipy.stats.t.logpdf(z, 4.0).sum(), rtol=1e-5)


def test_samples_of_a_student_t_have_its_tails():
    base = StudentT(2, initial=2.0)
    keys = lj.example_keys(KEY, range(5000))
    x = np.asarray(jax.vmap(lambda key: base.sample(key, 1.0))(keys)).reshape(-1)
    assert scipy.stats.kstest(x, scipy.stats.t(2.0).cdf).pvalue > 1e-3
    beyond = (np.abs(x) > 10).mean()  # a normal has no mass there
    np.testing.assert_allclose(beyond, 2 * scipy.stats.t.sf(10, 2.0), rtol=0.3)
    cooler = jax.vmap(lambda key: base.sample(key, 0.5))(keys)
    np.testing.assert_allclose(np.asarray(cooler).reshape(-1), 0.5 * x, rtol=1e-6)


def test_a_mixture_against_scipy():
    base = perturbed(GaussianMixture(2, 3, rngs=rngs()))
    z = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    means, scales = base.means[...], np.exp(base.log_scales[...])
    weights = scipy.special.log_softmax(np.asarray(base.logits[...]))
    components = scipy.stats.norm.logpdf(z[:, None], means, scales).sum(-1) + weights
    expected = scipy.special.logsumexp(components, axis=1)
    np.testing.assert_allclose(jax.vmap(base.log_prob)(z), expected, rtol=1e-5)

    keys = lj.example_keys(KEY, range(4000))
    x = np.asarray(jax.vmap(lambda key: base.sample(key, 1.0))(keys))
    mean = np.exp(weights) @ means
    variance = np.exp(weights) @ (scales**2 + np.asarray(means) ** 2) - mean**2
    assert (np.abs(x.mean(0) - mean) < 5 * np.sqrt(variance / 4000)).all()
    np.testing.assert_allclose(x.var(0), variance, rtol=0.15)
    np.testing.assert_array_equal(base.sample(KEY, 0.0), means[np.argmax(weights)])


def test_the_standard_normal_is_as_before():
    """Without a base nothing has changed: same parameters, same program."""
    flow = DENSITIES["maf, student t"].make()
    plain = lj.build(lj.models.MAFConfig(dimensions=3, depth=1, width=4, blocks=1), key=0)
    assert plain.base is None
    for ours, theirs in zip(
        jax.tree.leaves(plain.bijection), jax.tree.leaves(flow.bijection), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert lj.count_parameters(flow) == lj.count_parameters(plain) + 3

    def as_before(x):
        z, log_det = plain.bijection.forward(x)
        return standard_normal_log_prob(z).sum() + log_det

    x = jnp.zeros(3)
    program = jax.make_jaxpr(lambda x: plain._log_prob(x, None, None))(x)
    assert str(program) == str(jax.make_jaxpr(as_before)(x))


def test_a_base_of_latents_in_a_tuple():
    """The base sees all latents as one vector, in the order of encode."""
    chain = lj.bijections.Chain([lj.bijections.ActNorm(4), lj.bijections.FactorOut(4)])
    flow = perturbed(lj.models.Flow(chain, (2, 2, 4), base=StudentT(16)), scale=0.1)
    x = examples_of(flow, 3)
    z = flow.encode(x)
    assert [part.shape for part in z] == [(3, 2, 2, 2), (3, 2, 2, 2)]
    np.testing.assert_allclose(flow.decode(z), x, atol=1e-5)
    vectors = np.concatenate([part.reshape(3, -1) for part in z], axis=1)
    log_dets = jax.vmap(lambda each: flow.bijection.forward(each)[1])(jnp.asarray(x))
    expected = jax.vmap(flow.base.log_prob)(vectors) + log_dets
    np.testing.assert_allclose(flow.log_prob(x), expected, rtol=1e-5)
    drawn = jax.vmap(lambda key: flow.base.sample(key, 0.5))(lj.example_keys(KEY, range(2)))
    again = flow.encode(flow.sample(KEY, 2, temperature=0.5))
    vectors = np.concatenate([part.reshape(2, -1) for part in again], axis=1)
    np.testing.assert_allclose(vectors, drawn, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("base", ["student_t", "mixture"])
def test_a_flow_with_a_base_integrates_to_one(base):
    config = lj.models.MAFConfig(dimensions=2, depth=1, width=4, base=base, components=2)
    density = perturbed(lj.build(config, key=0), scale=0.1)
    assert density.kind is lj.Kind.EXACT
    side = np.linspace(-60, 60, 1201)
    grid = np.stack(np.meshgrid(side, side), -1).astype(np.float32)
    total = np.exp(np.asarray(density.log_prob(grid), np.float64)).sum() * 0.1**2
    np.testing.assert_allclose(total, 1, rtol=5e-3)


@pytest.mark.parametrize("base", ["student_t", "mixture"])
def test_a_flow_with_a_base_is_saved_and_restored(base, tmp_path):
    config = lj.models.MAFConfig(dimensions=2, depth=1, width=4, base=base, components=2)
    density = perturbed(lj.build(config, key=0))
    lj.save(density, tmp_path)
    x = examples_of(density, 3)
    np.testing.assert_array_equal(lj.restore(tmp_path).log_prob(x), density.log_prob(x))


def test_what_is_no_base():
    identity = lj.bijections.ActNorm(2)
    with pytest.raises(ValueError, match=r"expected a base of 2 dimensions.*StudentT of 3"):
        lj.models.Flow(identity, (2,), base=StudentT(3))
    with pytest.raises(ValueError, match="expected initial degrees of freedom above 1, got 1"):
        StudentT(2, initial=1.0)
    with pytest.raises(ValueError, match="components to be an integer of at least 1"):
        GaussianMixture(2, 0, rngs=nnx.Rngs(0))


@pytest.mark.untyped
def test_words_that_name_no_base():
    with pytest.raises(
        TypeError, match=r"such as lj\.models\.StudentT\(dimensions\), got student_t"
    ):
        lj.models.Flow(lj.bijections.ActNorm(2), (2,), base="student_t")
    with pytest.raises(ValueError, match=r"MAFConfig\.base.*did you mean 'student_t'"):
        lj.models.MAFConfig(base="student-t")
