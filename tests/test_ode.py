"""Continuous flows against closed forms, and what their solvers promise."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from flax import nnx
from jaxtyping import TypeCheckError

import likejax as lj
from likejax.bijections import ODE, BatchNorm, FactorOut, Standardize
from likejax.bijections.ode import Solver, Trace
from likejax.bijections.ode.field import AugmentedState
from likejax.bijections.ode.ode import solve
from likejax.evaluation import log_prob_in_chunks
from likejax.models.ffjord.dynamics import Dynamics, ImageDynamics, TimeConvolution, TimeDense
from likejax.nn.modules import Buffer
from likejax.nn.state import split
from tests.registry import perturbed, rngs

FLOORS = {
    "swissroll": 2.66,
    "8gaussians": 2.833,
    "pinwheel": 2.31,
    "circles": 3.26,
    "moons": 2.39,
    "2spirals": 2.64,
    "checkerboard": float(np.log(32)),
    "rings": 2.62,
}
"""Entropies in nats, by Monte Carlo; of the checkerboard exactly."""
METHODS = {"dopri5": 5, "tsit5": 5, "dopri8": 8, "bosh3": 3, "rk4": 4, "midpoint": 2}


class Linear(nnx.Module):
    """``f = A z + t b``."""

    def __init__(self, matrix, drift=None):
        self.matrix = nnx.Param(jnp.asarray(matrix))
        self.drift = Buffer(jnp.zeros(len(matrix)) if drift is None else jnp.asarray(drift))

    def __call__(self, t, z):
        return z @ self.matrix[...].T + t * self.drift[...].reshape((1,) * (z.ndim - 1) + (-1,))


class Wave(nnx.Module):
    """``f = z cos(3 t)``, whose solution is ``z exp(sin(3 t) / 3)``."""

    def __call__(self, t, z):
        return z * jnp.cos(3 * t)


class Bent(nnx.Module):
    """``f = z^2 cos t``, whose solution is ``1 / (1 / x - sin t)``, with a log-determinant of ``2
    log(z / x)``.
    """

    def __call__(self, t, z):
        return z * z * jnp.cos(t)


class Cubic(nnx.Module):
    """``f = z^3``, whose solution ends at infinity when ``t = 1 / (2 x^2)``."""

    def __call__(self, t, z):
        return z**3


MATRIX = np.array([[0.3, -1.2, 0.0], [0.8, -0.4, 0.5], [0.1, 0.7, 0.2]])


def network(seed: int = 0, **options) -> Dynamics:
    return perturbed(Dynamics(2, (8,), rngs=nnx.Rngs(seed), **options), scale=0.5)


@pytest.mark.parametrize(
    "solver", [Solver(m, 1e-9, 1e-9) for m in ("dopri5", "dopri8")] + [Solver("rk4", steps=80)]
)
def test_linear_ode(solver):
    """Forward, inverse and log-determinant of a linear field, by the matrix exponential; energies
    by quadrature.
    """
    with jax.enable_x64(True):
        end_time, x = 1.7, jax.random.normal(jax.random.key(0), (4, 3))
        ode = ODE(Linear(MATRIX), end_time=end_time, solver=solver)
        z, log_det = jax.jit(jax.vmap(ode.forward))(x)
        expected = x @ scipy.linalg.expm(end_time * MATRIX).T
        np.testing.assert_allclose(z, expected, atol=1e-7)
        np.testing.assert_allclose(log_det, end_time * np.trace(MATRIX), atol=1e-8)
        np.testing.assert_allclose(jax.jit(jax.vmap(ode.inverse))(expected), x, atol=1e-7)
        z, log_det, parts = jax.jit(jax.vmap(ode.terms))(x)
        np.testing.assert_allclose(z, expected, atol=1e-7)
        np.testing.assert_allclose(log_det, end_time * np.trace(MATRIX), atol=1e-8)
        times = np.linspace(0, end_time, 2001)
        flows = scipy.linalg.expm(times[:, None, None] * MATRIX)
        paths = np.einsum("bi,tji,kj->tbk", x, flows, MATRIX, optimize=True)
        energy = np.trapezoid(np.square(paths).sum(-1), times, axis=0) / (2 * 3)
        np.testing.assert_allclose(parts["kinetic_energy"], energy, rtol=1e-5)
        np.testing.assert_allclose(
            parts["jacobian_norm"], end_time * np.square(MATRIX).sum() / 3, rtol=1e-7
        )


@pytest.mark.parametrize("product", ["jvp", "vjp"])
def test_hutchinson_of_a_linear_ode(product):
    """With a constant Jacobian an estimate is ``T mean(e^T A e)``, and the norm ``T mean(|A e|^2) /
    D``.
    """
    with jax.enable_x64(True):
        probes = jax.random.normal(jax.random.key(1), (5, 2, 3))
        trace = Trace(probes=5, noise="gaussian", product=product)
        ode = ODE(Linear(MATRIX), trace=trace, solver=Solver("rk4", steps=4))
        _, log_det, parts = jax.vmap(ode.terms_with_probes, (0, 1))(jnp.ones((2, 3)), probes)
        np.testing.assert_allclose(
            log_det, np.einsum("sbi,ij,sbj->b", probes, MATRIX, probes) / 5, rtol=1e-10
        )
        image = probes @ (MATRIX.T if product == "jvp" else MATRIX)
        np.testing.assert_allclose(
            parts["jacobian_norm"], np.square(image).sum(-1).mean(0) / 3, rtol=1e-10
        )


@pytest.mark.parametrize(("method", "order"), METHODS.items())
def test_order(method, order):
    """With shorter steps the error falls as their length to the power of the order."""
    with jax.enable_x64(True):
        errors = []
        steps = (4, 8) if order == 8 else (8, 64)
        for count in steps:
            ode = ODE(Bent(), end_time=1.3, solver=Solver(method, steps=count))
            z, log_det = jax.jit(ode.forward)(jnp.full(1, 0.7))
            end = 1 / (1 / 0.7 - np.sin(1.3))
            assert float(log_det) == pytest.approx(2 * np.log(end / 0.7), rel=0.02)
            errors.append(abs(float(z[0]) - end))
        assert np.log(errors[0] / errors[1]) / np.log(steps[1] / steps[0]) == pytest.approx(
            order, abs=0.6
        )


def test_error_follows_the_tolerance():
    """A hundredth of the tolerance gives at most a tenth of the error, which stays below 100
    tolerances.
    """
    with jax.enable_x64(True):
        errors = []
        for tolerance in (1e-3, 1e-5, 1e-7):
            ode = ODE(Wave(), end_time=3.0, solver=Solver(rtol=tolerance, atol=tolerance))
            errors.append(
                abs(float(jax.jit(ode.forward)(jnp.ones(1))[0][0]) - np.exp(np.sin(9.0) / 3))
            )
            assert errors[-1] < 100 * tolerance
        assert errors[1] < errors[0] / 10
        assert errors[2] < errors[1] / 10


def test_round_trip():
    """Latents decode to the data within ten tolerances."""
    density = perturbed(lj.build(lj.models.FFJORDConfig(hidden=(16,)), key=0), scale=0.5)
    x = jax.random.normal(jax.random.key(0), (32, 2))
    np.testing.assert_allclose(density.decode(density.encode(x)), x, atol=1e-4)


def test_hutchinson_is_unbiased():
    """The mean over 4,096 probes lies within 4 standard errors of the exact trace; errors fall as
    1/sqrt(probes).
    """
    with jax.enable_x64(True):
        field, x = network(), jnp.asarray([0.3, -0.8])
        ode = ODE(field, solver=Solver(rtol=1e-8, atol=1e-8))
        exact = jax.jit(ode.forward)(x)[1]
        run = jax.jit(jax.vmap(ode.forward_with_probes, (None, 0)))
        keys = jax.random.split(jax.random.key(2), 4096)
        for noise in ("rademacher", "gaussian"):
            spread = {}
            for probes in (1, 16):
                trace = Trace(probes, noise=noise)
                drawn = jax.vmap(lambda key, trace=trace: trace.draw(key, (2,)))(keys)
                values = np.asarray(run(x, drawn)[1])
                error = values.std(ddof=1) / np.sqrt(len(values))
                assert error > 0
                assert abs(values.mean() - exact) < 4 * error
                spread[probes] = values.std(ddof=1)
            assert spread[1] / spread[16] == pytest.approx(4, rel=0.15)


def test_batch_mates_do_not_matter():
    """With half of a batch replaced by far points, the other half does not move by one bit."""
    for trace in (Trace(), Trace(probes=1)):
        density = perturbed(
            lj.build(lj.models.FFJORDConfig(hidden=(16, 16), trace=trace), key=0), scale=0.5
        )
        x = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
        far = x.copy()
        far[8:] = 30 * far[8:] + 50
        key = jax.random.key(3)
        alone, beside = density.log_prob(x, key=key), density.log_prob(far, key=key)
        np.testing.assert_array_equal(alone[:8], beside[:8])
        assert np.isfinite(beside).all()
        assert not np.allclose(alone[8:], beside[8:])
        np.testing.assert_array_equal(density.encode(x)[:8], density.encode(far)[:8])


@pytest.mark.parametrize("trace", [Trace(), Trace(probes=2)], ids=["exact", "hutchinson"])
def test_the_joint_solve_differs_within_the_tolerance(trace):
    """Training's one solve of a batch and the separate ones agree to ten tolerances, on the same
    probes.
    """
    tolerance = 1e-5
    solver = Solver(rtol=tolerance, atol=tolerance)
    config = lj.models.FFJORDConfig(
        hidden=(16,), flows=2, trace=trace, training_trace=trace, solver=solver
    )
    density = perturbed(
        lj.build(dataclasses.replace(config, training_solver=solver), key=0), scale=0.5
    )
    x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    separate, joint = density.log_prob(x, key=7), density.terms(x, key=7)
    np.testing.assert_allclose(joint.log_prob, separate, rtol=10 * tolerance, atol=10 * tolerance)
    assert joint.log_prob.shape == (64,)
    assert {"kinetic_energy", "jacobian_norm", "evaluations"} == set(joint.parts)


def test_energies_have_no_say_in_the_steps():
    """With and without them, even where they change fastest, steps and states are the same."""
    ode = ODE(network(), end_time=2.0, solver=Solver(rtol=1e-4, atol=1e-4))
    x, zero = jax.random.normal(jax.random.key(0), (8, 2)) * 3, jnp.zeros(8)

    @jax.jit
    def both(ode):
        plain = solve(ode, AugmentedState(x, zero), ode.solver, trace=ode.trace)
        energetic = AugmentedState(x, zero, zero, zero)
        return plain, solve(ode, energetic, ode.solver, trace=ode.trace)

    (plain, steps), (with_energies, same_steps) = both(ode)
    assert int(steps) == int(same_steps) > 20
    np.testing.assert_allclose(plain.z, with_energies.z, rtol=5e-6)
    np.testing.assert_allclose(plain.log_det, with_energies.log_det, rtol=1e-5, atol=1e-6)
    assert (with_energies.kinetic_energy > 0).all()


@pytest.mark.parametrize(
    "solver", [Solver(rtol=1e-8, atol=1e-8), Solver("rk4", steps=40)], ids=["adaptive", "fixed"]
)
def test_adjoints_agree(solver):
    """Checkpointed and continuous: the same gradient, of the end time too, and that of the closed
    form.
    """
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (5, 3))

        def loss(ode):
            z, log_det, _ = jax.vmap(ode.terms)(x)
            return jnp.mean(jnp.sum(jnp.square(z), -1) - 3 * log_det)

        gradients = []
        for adjoint in ("checkpointed", "continuous"):
            training = dataclasses.replace(solver, adjoint=adjoint)
            ode = ODE(Linear(MATRIX), end_time=1.3, training_solver=training)
            gradients.append(jax.jit(jax.grad(loss))(ode))

        def closed(matrix, root):
            z = x @ jax.scipy.linalg.expm(root**2 * matrix).T
            return jnp.mean(jnp.sum(jnp.square(z), -1)) - 3 * root**2 * jnp.trace(matrix)

        expected = jax.grad(closed, argnums=(0, 1))(jnp.asarray(MATRIX), jnp.sqrt(1.3))
        for gradient in gradients:
            np.testing.assert_allclose(
                gradient.dynamics.matrix[...], expected[0], rtol=1e-5, atol=1e-6
            )
            np.testing.assert_allclose(gradient.sqrt_end_time[...], expected[1], rtol=1e-5)


def test_the_continuous_adjoint_takes_probes():
    """With a constant Jacobian the estimate is ``T mean(e^T A e)``, and its gradient ``T mean(e
    e^T)``.
    """
    with jax.enable_x64(True):
        probes = jax.random.normal(jax.random.key(1), (2, 3, 3))
        solver = Solver("rk4", steps=4, adjoint="continuous")
        trace = Trace(probes=2, noise="gaussian")
        ode = ODE(Linear(MATRIX), end_time=1.3, training_trace=trace, training_solver=solver)

        def loss(ode):
            _, log_det, _ = jax.vmap(ode.terms_with_probes, (0, 1))(jnp.ones((3, 3)), probes)
            return log_det.sum()

        gradient = jax.jit(jax.grad(loss))(ode).dynamics.matrix[...]
        expected = 1.3 * np.einsum("sbi,sbj->ij", probes, probes) / 2
        np.testing.assert_allclose(gradient, expected, rtol=1e-8)


def test_one_ode_for_all_examples_of_a_batch():
    """Parameters with a batch axis are refused beside the examples, and mapped outside of them."""
    x = jnp.ones((2, 2))
    odes = jax.vmap(
        lambda key: ODE(Dynamics(2, (4,), rngs=nnx.Rngs(key)), solver=Solver("midpoint", steps=1))
    )(jax.random.split(jax.random.key(0), 2))
    with pytest.raises(ValueError, match="expected the examples of one ODE in training"):
        jax.vmap(lambda ode, x: ode.terms(x)[1])(odes, x)
    outside = jax.vmap(lambda ode: jax.vmap(ode.terms)(x)[1])(odes)
    assert outside.shape == (2, 2)
    first = jax.tree.map(lambda leaf: leaf[0], odes)
    np.testing.assert_allclose(outside[0], jax.vmap(first.terms)(x)[1], rtol=1e-6)
    z, log_det, _ = first.terms(x[0])
    np.testing.assert_allclose(log_det, outside[0, 0], rtol=1e-6)
    assert z.shape == (2,)


def test_keys_and_examples_may_be_shared():
    """Under vmap an example without a batch axis meets many keys, and a key many examples."""
    trace = Trace(probes=1)
    ode = ODE(network(), training_trace=trace, training_solver=Solver("midpoint", steps=1))
    x, keys = jax.random.normal(jax.random.key(0), (2, 2)), jax.random.split(jax.random.key(1), 2)
    terms = jax.vmap(lambda x, key: ode.terms(x, key)[1])
    same_x = jax.vmap(lambda key: ode.terms(x[0], key)[1])(keys)
    np.testing.assert_array_equal(same_x, terms(jnp.stack([x[0], x[0]]), keys))
    same_key = jax.vmap(lambda x: ode.terms(x, keys[0])[1])(x)
    np.testing.assert_array_equal(same_key, terms(x, jnp.stack([keys[0], keys[0]])))


@pytest.mark.parametrize("wrap", ["integers", "table"])
def test_log_prob_of_what_wraps_a_flow_takes_the_solver_of_evaluation(wrap):
    """Around a flow log_prob solves as it does alone; only terms take the solver of training."""
    fine, coarse = Solver("midpoint", steps=8), Solver("midpoint", steps=1)

    def wrapped(solver: Solver, training: Solver) -> lj.Density:
        ode = ODE(network(), solver=solver, training_solver=training)
        flow = lj.models.Flow(ode, (2,))
        if wrap == "integers":
            return lj.models.Dequantized(flow, 4)
        return lj.models.Tabular(flow, [lj.data.Integer(), lj.data.Continuous()])

    x = np.array([[1, 2], [3, 0]], np.uint8 if wrap == "integers" else np.float32)
    best = wrapped(fine, fine).log_prob(x, key=0)
    np.testing.assert_array_equal(wrapped(fine, coarse).log_prob(x, key=0), best)
    assert (wrapped(coarse, fine).log_prob(x, key=0) != best).all()
    trained = wrapped(fine, coarse).terms(x, key=0).log_prob
    np.testing.assert_allclose(trained, wrapped(coarse, coarse).log_prob(x, key=0), rtol=1e-6)


def test_evaluations_are_counted():
    """What terms reports is what a counter in the field counts, forward; backward is counted
    likewise.
    """
    x = lj.load("moons").examples[:8]
    key = jax.random.key(0)
    for solver, backward in ((Solver("bosh3"), None), (Solver("rk4", steps=3), 12)):
        density = lj.build(lj.models.FFJORDConfig(hidden=(8,), training_solver=solver), key=0)
        count = lj.models.function_evaluations(density, x, key=key)
        assert count.forward == int(density.terms(x, key=key).parts["evaluations"][0]) > 0
        assert count.backward == (backward or count.forward - 1)  # the first slope is reused


def test_a_solve_that_fails_says_so():
    """NaN in its place and nowhere else; evaluate names it; terms are NaN together."""
    density = lj.models.Flow(ODE(Cubic(), solver=Solver(max_steps=200)), (2,))
    x = np.random.default_rng(0).uniform(-0.6, 0.6, size=(8, 2)).astype(np.float32)
    before = density.log_prob(x)
    x[5] = 3.0
    log_prob = density.log_prob(x)
    assert np.isfinite(before).all()
    np.testing.assert_array_equal(np.isnan(log_prob), np.arange(8) == 5)
    np.testing.assert_array_equal(np.delete(log_prob, 5), np.delete(before, 5))
    assert np.isnan(density.terms(x).log_prob).all()
    with pytest.raises(
        ValueError,
        match=r"NaN for 1 of the 8 examples of array train, the first at row 5.*max_steps",
    ):
        lj.evaluate(density, lj.Dataset.from_array(x))


def test_training_stops_when_solves_fail():
    config = lj.models.FFJORDConfig(
        hidden=(8,), training_solver=Solver(max_steps=1, rtol=1e-7, atol=1e-7)
    )
    experiment = lj.Experiment(
        model=config, batch_size=16, steps=30, guard=lj.train.Guard(patience=3)
    )
    with pytest.raises(lj.train.NonFiniteError, match="step"):
        lj.fit(experiment, lj.load("moons"), key=0)


def test_kinds():
    exact = lj.build(lj.models.FFJORDConfig(hidden=(4,)), key=0)
    assert exact.kind is lj.Kind.EXACT
    estimate = lj.models.with_solver(exact, trace=Trace(probes=1))
    assert estimate.kind is lj.Kind.ESTIMATE
    assert estimate.config.trace == Trace(probes=1)
    assert lj.models.Dequantized(estimate, 4).kind is lj.Kind.ESTIMATE
    assert lj.models.Dequantized(exact, 4).kind is lj.Kind.BOUND
    with pytest.raises(ValueError, match="needs a key"):
        estimate.log_prob(np.zeros((1, 2), np.float32))
    glow = lj.build(lj.models.VectorGlowConfig(depth=1, width=4), key=0)
    with pytest.raises(TypeError, match="expected a continuous flow"):
        lj.models.with_solver(glow, solver=Solver())
    training = lj.models.with_solver(exact, training_trace=Trace(probes=1))
    with pytest.raises(ValueError, match="needs a key"):
        training.terms(np.zeros((1, 2), np.float32))


def test_draws_average_probes():
    """Draws of an estimate spread around the exact value, and evaluate states the error of their
    mean.
    """
    density = perturbed(
        lj.build(lj.models.FFJORDConfig(hidden=(8,), trace=Trace(probes=1)), key=0), scale=0.5
    )
    data = lj.load("moons", split="test").take(np.arange(64))
    exact = lj.models.with_solver(density, trace=Trace()).log_prob(data.examples)
    draws = np.asarray(density.log_prob_draws(data.examples, key=0, draws=64))
    error = draws.std(0, ddof=1) / 8
    assert (np.abs(draws.mean(0) - exact) < 5 * error + 1e-4).all()
    evaluation = lj.evaluate(density, data, key=0, draws=64)
    np.testing.assert_allclose(evaluation.log_prob, draws.mean(0), rtol=1e-4, atol=1e-4)
    assert evaluation.monte_carlo_error == pytest.approx(
        np.sqrt(np.square(error).sum()) / 64, rel=1e-3
    )
    assert "log p ~" in str(evaluation)


@pytest.mark.parametrize("images", [False, True])
def test_concat_is_a_channel_of_time(images):
    """The time as one more input channel, the first, zero outside an image like the others."""
    make = TimeConvolution if images else TimeDense
    layer = make(2, 3, time="concat", rngs=rngs())
    h = jax.random.normal(jax.random.key(0), (4, 5, 2) if images else (2,))
    with_time = jnp.concatenate([jnp.full_like(h[..., :1], 0.7), h], -1)
    plain = make(3, 3, time="ignore", rngs=rngs())
    plain.kernel, plain.bias = layer.kernel, layer.bias
    np.testing.assert_allclose(layer(0.7, h), plain(0.0, with_time), rtol=1e-5, atol=1e-6)


def test_strides():
    """Halving and doubling 4x4 convolutions are XLA's with a padding of 1, the doubling one that of
    the transpose.
    """
    h = jax.random.normal(jax.random.key(0), (1, 6, 8, 3))
    down = TimeConvolution(3, 5, stride=2, time="ignore", rngs=rngs())
    numbers = ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(
        h, down.kernel[...], (2, 2), ((1, 1), (1, 1)), dimension_numbers=numbers
    )
    np.testing.assert_allclose(
        down(0.0, h), expected + down.bias[...].reshape(1, 1, 1, -1), rtol=1e-4, atol=1e-5
    )
    up = TimeConvolution(3, 5, stride=-2, time="ignore", rngs=rngs())
    transposed = jax.lax.conv_transpose(
        h, up.kernel[...][::-1, ::-1], (2, 2), "SAME", dimension_numbers=numbers
    )
    got = up(0.0, h) - up.bias[...].reshape(1, 1, 1, -1)
    assert got.shape == (1, 12, 16, 5)
    np.testing.assert_allclose(got, transposed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["softplus", "swish"])
def test_autoencoder_shaped_field(activation):
    """One scale, halved and doubled inside the field: exact and estimated log-masses agree on
    average.
    """
    config = lj.models.ImageFFJORDConfig(
        event_shape=(4, 4, 1),
        levels=4,
        alpha=0.05,
        hidden=(4, 4),
        strides=(2, 1, -2),
        flows=1,
        multiscale=False,
        activation=activation,
        solver=Solver("midpoint", steps=2),
        training_solver=Solver("midpoint", steps=2),
    )
    density = perturbed(lj.build(config, key=0), scale=0.2)
    assert density.flow.latent_shapes().shape == (4, 4, 1)
    x = np.random.default_rng(0).integers(0, 4, (3, 4, 4, 1)).astype(np.uint8)
    exact = lj.models.with_solver(density, trace=Trace()).log_prob_draws(x, key=1, draws=256)
    estimates = density.log_prob_draws(x, key=1, draws=256)
    assert (density.kind, lj.models.with_solver(density, trace=Trace()).kind) == (
        lj.Kind.ESTIMATE,
        lj.Kind.BOUND,
    )
    difference = np.asarray(estimates - exact)
    error = difference.std(0, ddof=1) / 16
    assert (np.abs(difference.mean(0)) < 5 * error + 1e-4).all()
    assert density.sample(3, 2).shape == (2, 4, 4, 1)


def test_identity_at_the_start():
    """With the last layer at zero a flow starts as the identity, and its energies at zero."""
    density = lj.build(lj.models.FFJORDConfig(hidden=(8,), zero_last=True, flows=2), key=0)
    x = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    terms = density.terms(x)
    normal = -0.5 * np.square(x).sum(1) - np.log(2 * np.pi)
    np.testing.assert_allclose(terms.log_prob, normal, rtol=1e-6)
    np.testing.assert_array_equal(terms.parts["kinetic_energy"], 0)


def test_initial_scale():
    """Three times the weight matrices, the same biases and gates."""
    one, three = (
        lj.build(lj.models.FFJORDConfig(hidden=(4,), initial_scale=s), key=0) for s in (1.0, 3.0)
    )
    for name, value in split(one)[1].items():
        factor = 3.0 if name.endswith("kernel") else 1.0
        np.testing.assert_allclose(split(three)[1][name], factor * value, rtol=1e-6, err_msg=name)


def test_energies_enter_the_loss():
    """Weighted as they are, beside bits per dimension; a density without them is refused."""
    density = perturbed(lj.build(lj.models.FFJORDConfig(hidden=(8,)), key=0))
    batch = next(iter_batches(lj.load("moons"), 16))
    plain, metrics = lj.NLL()(density, batch, jax.random.key(0), jnp.zeros((), int))
    weighted, _ = lj.NLL(weights={"kinetic_energy": 0.5, "jacobian_norm": 2.0})(
        density, batch, jax.random.key(0), jnp.zeros((), int)
    )
    added = 0.5 * metrics["kinetic_energy"] + 2 * metrics["jacobian_norm"]
    assert added > 0
    np.testing.assert_allclose(weighted, plain + added, rtol=1e-5)
    glow = lj.build(lj.models.VectorGlowConfig(depth=1, width=4), key=0)
    with pytest.raises(ValueError, match="its terms have no part kinetic_energy"):
        lj.NLL(weights={"kinetic_energy": 1.0})(glow, batch, jax.random.key(0), jnp.zeros((), int))


def iter_batches(dataset, size):
    from likejax.data.batches import Batch

    yield Batch(x=jnp.asarray(dataset.examples[:size]), condition=None, weight=None)


def test_standardize():
    """Nats refer to the data as given; evaluate prints them with reference to standardized data
    too.
    """
    rng = np.random.default_rng(0)
    table = lj.Dataset.from_array(
        (rng.normal(size=(500, 2)) * [5.0, 0.01] + [3.0, -7.0]).astype(np.float32)
    )
    config = lj.models.FFJORDConfig(hidden=(4,), standardize=True, zero_last=True)
    density = lj.build(config, key=0).initialize(table.examples, 0)
    evaluation = lj.evaluate(density, table)
    scales = np.log(table.examples.std(0, dtype=np.float64)).sum()
    assert evaluation.sum_log_std == pytest.approx(scales, rel=1e-4)
    assert evaluation.standardized == pytest.approx(-1 - np.log(2 * np.pi), rel=1e-4)
    assert evaluation.mean == pytest.approx(evaluation.standardized - scales, rel=1e-5)
    assert f"{evaluation.standardized:.4f} standardized" in str(evaluation)
    assert evaluation.to_dict()["standardized"] == evaluation.standardized
    assert lj.evaluate(lj.models.FullGaussian.fit(table), table).standardized is None
    constant = Standardize(2).initialize(jnp.ones((5, 2)), jax.random.key(0))
    np.testing.assert_array_equal(constant.forward(jnp.ones(2))[0], 0)


def test_batch_norm_and_factor_out():
    norm = BatchNorm(jnp.ones(2), jnp.full(2, 4.0), jnp.array([0.1, -0.2]), jnp.array([1.0, 2.0]))
    z, log_det = norm.forward(jnp.array([3.0, -1.0]))
    scale = np.exp([0.1, -0.2]) / np.sqrt(4.0001)
    np.testing.assert_allclose(z, np.array([2.0, -2.0]) * scale + [1, 2], rtol=1e-6)
    np.testing.assert_allclose(log_det, np.log(scale).sum(), rtol=1e-5)
    (kept, out), log_det = FactorOut(3).forward(jnp.arange(6.0).reshape(2, 3))
    assert kept.shape[-1] + out.shape[-1] == 3
    assert log_det == 0


def test_a_path_ends_where_forward_does():
    density = perturbed(lj.build(lj.models.FFJORDConfig(hidden=(8,)), key=0))
    ode = density.bijection.bijections[0].blocks.blocks[0]
    x = jnp.array([0.5, -1.0])
    path = ode.path(x, np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(path[0], x)
    np.testing.assert_allclose(path[-1], density.encode(x), rtol=1e-4, atol=1e-5)


@pytest.mark.optimized
@pytest.mark.parametrize("name", FLOORS)
def test_trained_toys_are_densities(name):
    """After a little training of the paper's network: mass 1 on a grid, and no better than the
    entropy allows.
    """
    experiment = dataclasses.replace(
        lj.preset(f"ffjord/{name}"), steps=75, log_every=25, validate_every=75
    )
    train, test = lj.load(name), lj.load(name, split="test").take(np.arange(1000))
    density = lj.fit(experiment, train, key=0).density
    side = 7.0
    ticks = (np.arange(100) + 0.5) / 100 * 2 * side - side
    grid = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2).astype(np.float32)
    log_probs = log_prob_in_chunks(density, grid, batch_size=1000)
    assert np.exp(log_probs).sum() * (2 * side / 100) ** 2 == pytest.approx(1, abs=5e-3)
    evaluation = lj.evaluate(density, test, batch_size=1000)
    assert -evaluation.mean > FLOORS[name] - 4 * evaluation.standard_error


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Solver(method="rk4"), "set steps"),
        (lambda: Solver(method="euler"), "'euler'"),
        (lambda: Solver(steps=-1), "Solver.steps to be an integer of at least 1"),
        (lambda: Solver(rtol=0.0, atol=0.0), "rtol or atol above 0"),
        (lambda: Solver(adjoint="symplectic"), "'symplectic'"),
        (lambda: Trace(probes=-1), "Trace.probes to be an integer of at least 1"),
        (lambda: Trace(noise="uniform"), "'uniform'"),
        (lambda: Trace(product="hvp"), "'hvp'"),
        (lambda: ODE(Wave(), end_time=0.0), "expected end_time to be a number above 0"),
        (lambda: TimeConvolution(1, 1, stride=3, rngs=rngs()), "stride"),
        (lambda: ImageDynamics(2, (4,), strides=(1,), rngs=rngs()), "expected 2 strides"),
        (lambda: Dynamics(2, (4,), activation="relu", rngs=rngs()), "'relu'"),
        (
            lambda: lj.models.FFJORDConfig(flows=0),
            "FFJORDConfig.flows to be an integer of at least 1",
        ),
    ],
)
def test_wrong_use_says_what_to_do(make, message):
    with pytest.raises((ValueError, TypeCheckError), match=message):
        make()
