"""The official hierarchical VAE (hvae-oodd) in plain numpy, from the text beside the golden files,
for one example.

It knows nothing of likejax: it decides by itself which layers there are, and draws weights for
those that it is not
given. So models of other forms than those in the golden files can be compared too.
"""

from __future__ import annotations

import dataclasses

import numpy as np

ACTIVATIONS = {
    "ReLU": lambda x: np.maximum(x, 0),
    "LeakyReLU": lambda x: np.where(x > 0, x, 0.01 * x),
    "ELU": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "SELU": lambda x: (
        1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))
    ),
    "Swish": lambda x: x / (1 + np.exp(-x)),
    "SoftPlus": lambda x: np.logaddexp(x, 0),
    "Tanh": np.tanh,
}


@dataclasses.dataclass
class OfficialHVAE:
    """A model of given rows (channels, kernel, stride, gated) for every stage, from the data
    upwards."""

    rows: list[np.ndarray]
    latent_blocks: list[str]
    latent_features: list[int]
    activation: str
    likelihood: tuple[int, int | None, bool]
    """Outputs, kernel (``None`` for a dense layer), and whether an activation stands in front."""
    weights: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    rng: np.random.Generator | None = None

    def run(self, x: np.ndarray, eps: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Posteriors, priors and latents by name, and ``outputs`` of the likelihood, of one image
        (C, H, W)."""
        found: dict[str, np.ndarray] = {}
        act = ACTIVATIONS[self.activation]
        top = len(self.rows) - 1
        lower, hidden, maps, latents = x, None, [], []
        for i, rows in enumerate(self.rows):
            aux, h = hidden, lower
            for j, row in enumerate(rows):
                h = self.block(
                    f"stage{i}.q.block{j}", row, h, aux, aux, residual=j > 0 or i > 0, grows=False
                )
            mean, std = self.moments(f"stage{i}.latent_q", h, i)
            z = mean + std * eps[i]
            found |= {f"q_mean.z{i + 1}": mean, f"q_std.z{i + 1}": std, f"z{i + 1}": z}
            maps.append(h)
            latents.append(z)
            is_map = z.ndim == 3
            if i < top:
                lower = z if is_map else self.layer(f"stage{i}.proj_q", z, h.size).reshape(h.shape)
            hidden = h
        below, queue = None, []
        for i in reversed(range(len(self.rows))):
            z, h = latents[i], maps[i]
            if i < top:
                mean, std = self.moments(f"stage{i}.latent_p", below, i)
                found |= {f"p_mean.z{i + 1}": mean, f"p_std.z{i + 1}": std}
            d = z if z.ndim == 3 else self.layer(f"stage{i}.proj_p", z, h.size).reshape(h.shape)
            for j, row in enumerate(self.rows[i][::-1]):
                aux = queue.pop(0) if i < top else None
                built_for = None if aux is None else h
                d = self.block(
                    f"stage{i}.p.block{j}", row, d, aux, built_for, residual=j > 0, grows=True
                )
                queue.append(d)
            below = d
        outputs, kernel, activated = self.likelihood
        below = act(below) if activated else below
        is_dense = kernel is None
        found["outputs"] = self.layer(
            "lik", below.reshape(-1) if is_dense else below, outputs, kernel or 1
        )
        return found

    def block(self, name, row, x, aux, built_for, *, residual: bool, grows: bool) -> np.ndarray:
        channels, kernel, stride, gated = map(int, row)
        act = ACTIVATIONS[self.activation]
        y = self.layer(f"{name}.conv1", act(x) if residual else x, channels, kernel)
        if aux is not None:
            if built_for.shape[1] < y.shape[1]:
                factor = y.shape[1] // built_for.shape[1]
                y = y + self.layer(f"{name}.aux", act(aux), channels, kernel, factor, grows=True)
            elif built_for.shape[1] > y.shape[1]:
                y = y + self.layer(
                    f"{name}.aux", act(aux), channels, kernel, built_for.shape[1] // y.shape[1]
                )
            elif built_for.shape[0] != channels:
                y = y + self.layer(f"{name}.aux", act(aux), channels, 1)
        outputs = 2 * channels if gated else channels
        y = self.layer(f"{name}.conv2", act(y), outputs, kernel, stride, grows=grows and stride > 1)
        if gated:
            y = y[:channels] / (1 + np.exp(-y[channels:]))
        if residual and not (grows and stride > 1):
            missing = channels - x.shape[0]
            x = np.pad(x, ((0, max(0, missing)), (0, 0), (0, 0)))[:channels]
            y = y + (pool(x, stride) if stride > 1 else x)
        return y

    def moments(self, name: str, h: np.ndarray, stage: int) -> tuple[np.ndarray, np.ndarray]:
        h = ACTIVATIONS[self.activation](h)
        outputs = 2 * self.latent_features[stage]
        is_dense = self.latent_blocks[stage] == "GaussianDense"
        logits = (
            self.layer(name, h.reshape(-1), outputs)
            if is_dense
            else self.layer(name, h, outputs, 3)
        )
        mean, raw = np.split(logits, 2)
        return mean, np.maximum(np.logaddexp(np.log(2) * raw, 0) / np.log(2), 1e-6)

    def layer(self, name, x, outputs, kernel=1, stride=1, *, grows=False) -> np.ndarray:
        """A weight-normalized dense layer, convolution, or transposed convolution."""
        if x.ndim == 1:
            direction, scale, bias = self.parts(name, (outputs, x.size), (outputs, 1))
            return scale[:, 0] * (direction @ x) / np.sqrt((direction**2).sum(1)) + bias
        if not grows:
            shape, scale_shape = (outputs, len(x), kernel, kernel), (outputs, 1, 1, 1)
            direction, scale, bias = self.parts(name, shape, scale_shape)
            w = scale * direction / np.sqrt((direction**2).sum((1, 2, 3), keepdims=True))
            padded = np.pad(x, [(0, 0), *(same(size, kernel, stride) for size in x.shape[1:])])
            rows, columns = (-(-size // stride) for size in x.shape[1:])
            y = np.zeros((outputs, rows, columns)) + bias[:, None, None]
            for a in range(kernel):
                for b in range(kernel):
                    seen = padded[
                        :, a : a + stride * rows : stride, b : b + stride * columns : stride
                    ]
                    y = y + np.einsum("oi,ihw->ohw", w[:, :, a, b], seen[:, :rows, :columns])
            return y
        shape, scale_shape = (len(x), outputs, kernel, kernel), (1, outputs, 1, 1)
        direction, scale, bias = self.parts(name, shape, scale_shape)
        w = scale * direction / np.sqrt((direction**2).sum((0, 2, 3), keepdims=True))
        height, width = x.shape[1:]
        full = np.zeros((outputs, (height - 1) * stride + kernel, (width - 1) * stride + kernel))
        for i in range(height):
            for j in range(width):
                place = full[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
                place += np.einsum("i,ioab->oab", x[:, i, j], w)
        full += bias[:, None, None]
        cut = kernel - stride
        return cropped(cropped(full, cut // 2, cut - cut // 2, 1), cut // 2, cut - cut // 2, 2)

    def parts(self, name, shape, scale_shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        outputs = int(np.prod(scale_shape))
        if f"{name}.V" not in self.weights:
            assert self.rng is not None, f"{name} is not among the weights"
            self.weights[f"{name}.V"] = self.rng.normal(size=shape)
            self.weights[f"{name}.g"] = self.rng.uniform(0.5, 1.5, size=scale_shape)
            self.weights[f"{name}.b"] = 0.3 * self.rng.normal(size=outputs)
        direction, scale, bias = (self.weights[f"{name}.{part}"] for part in "Vgb")
        assert direction.shape == shape, name
        return direction, scale, bias


def same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding as TensorFlow's: the smaller half in front."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def cropped(x: np.ndarray, front: int, back: int, axis: int) -> np.ndarray:
    """Without so many entries at both ends of an axis; with zeros more where the number is
    negative."""
    edges = [(0, 0)] * x.ndim
    edges[axis] = (max(0, -front), max(0, -back))
    x = np.pad(x, edges)
    return np.take(x, np.arange(max(0, front), x.shape[axis] - max(0, back)), axis=axis)


def pool(x: np.ndarray, stride: int) -> np.ndarray:
    """The mean of 3x3 positions, of which those outside of the map are zero."""
    padded = np.pad(x, [(0, 0), *(same(size, 3, stride) for size in x.shape[1:])])
    rows, columns = (-(-size // stride) for size in x.shape[1:])
    y = np.zeros((len(x), rows, columns))
    for i in range(rows):
        for j in range(columns):
            y[:, i, j] = (
                padded[:, i * stride : i * stride + 3, j * stride : j * stride + 3].sum((1, 2)) / 9
            )
    return y
