"""Recurrent layers: a template, and the cells that fill it.

A new cell says how many gates it has, how it starts and how one step advances; the template brings
the projection of the inputs, the scan, resets between documents, padding, streaming, noise and
gradients.
"""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any, ClassVar, final

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from recattn_jax import partition
from recattn_jax.kernels import cells, fused_recurrence, products, recurrence, tracing
from recattn_jax.kernels.precision import wide
from recattn_jax.layers.base import Context, SequenceLayer
from recattn_jax.layers.initializers import per_gate_lecun, per_gate_orthogonal
from recattn_jax.layers.noise import Noise
from recattn_jax.layers.recurrent_state import RecurrentState, resume
from recattn_jax.shapes import Activations, Array, Float, State


class Recurrent(SequenceLayer):
    """The template of recurrent layers (abstract).

    `gates_t = x_t W + b + h_{t-1} U`, `carry_t = advance(carry_{t-1}, gates_t)`, `y_t = h_t`.

    A cell says `gates`, `leaves`, `advance` and `bias_init`; the other pieces are for cells that
    carry, multiply or merge something else.

    Parameters keep the gate as an axis of its own, so that a split of H over devices keeps every
    gate of a unit together: `input_kernel [D, G, H]`, `recurrent_kernel [H, G, H]`, `bias [G, H]`.
    The carry is float32, or wider where x is.

    With `mutable=["intermediates"]` all `carries` and `gates` come out too, arrays `[B, T, H]`.

    Attributes:
      features: units H.
      noise: what is random where rng streams are given.
      remat_every: None keeps all gates for the backward pass; k keeps the carry of every k-th step
        and computes the rest anew, in about a third more time.

    >>> import jax
    >>> class Decay(Recurrent):
    ...     gates, leaves, bias_init = 1, 1, staticmethod(nn.initializers.zeros)
    ...
    ...     @staticmethod
    ...     def advance(carry, gates_BGH):
    ...         return (0.9 * carry[0] + jnp.tanh(gates_BGH[:, 0]),)
    >>> Decay(4).init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0][0].shape
    (2, 5, 4)
    """

    features: int
    noise: Noise = dataclasses.field(default=Noise(), kw_only=True)
    remat_every: int | None = dataclasses.field(default=None, kw_only=True)

    gates: ClassVar[int]
    """How many gates the cell has, G."""
    leaves: ClassVar[int]
    """How many arrays the carry has, the hidden state first."""
    zoned: ClassVar[int | None] = None
    """How many of them, from the first, zoneout may keep; None for all."""

    @staticmethod
    def advance(carry: recurrence.Carry, gates_BGH: Array) -> recurrence.Carry:
        """One step, elementwise and without parameters: `(carry, gates [B, G, H]) -> carry`."""
        raise NotImplementedError

    view: ClassVar[Callable[..., dict[str, Array]] | None] = None
    """Of the arguments of `advance`, the gates as they act, by name; None names none."""

    @property
    def bias_init(self) -> nn.initializers.Initializer:
        """How `bias [G, H]` starts."""
        raise NotImplementedError

    @property
    def cell(self) -> recurrence.Cell:
        """The functions of the cell; the same ones each time, so that programs are found again."""
        return recurrence.Cell(products.affine, operator.add, self.advance, self.view)

    @property
    def widths(self) -> tuple[int, ...]:
        """How wide each array of the carry is; the first is the width of y."""
        return (self.features,) * self.leaves

    @property
    def recurrent_shape(self) -> tuple[int, ...]:
        """The shape of `recurrent_kernel`: `[P, G, H]`, or `[N, K, G, K]` for N separate heads."""
        return (self.widths[0], self.gates, self.features)

    @property
    def bias_shape(self) -> tuple[int, int]:
        """The shape of `bias`: `[G, H]`, or more gates, which then only the bias feeds."""
        return (self.gates, self.features)

    def project_weights(self, input_kernel: Array, bias: Array) -> Any:
        """What `cell.project` takes."""
        return input_kernel, bias

    def step_weights(self, recurrent_kernel: Array) -> tuple[Array, tuple[Any, ...]]:
        """The kernel of the product with h, and what `cell.advance` takes beside the gates."""
        return recurrent_kernel, ()

    def inputs(self, x: Activations, drop: Array | None) -> Any:
        """What `cell.project` takes for x; a cell with a product of its own hands `drop` on."""
        del drop
        return x

    def run(
        self, cell: recurrence.Cell, *arguments: Any, **options: Any
    ) -> tuple[Float[Array, "B T P"], recurrence.Carry]:
        """`scan_cell` of these arguments; a cell with kernels of its own may choose one here."""
        return recurrence.scan_cell(cell, *arguments, **options)

    @final
    @property
    def streams(self) -> bool:
        """Always."""
        return True

    @final
    @nn.compact
    def forward(
        self, x: Activations, state: State | None, context: Context
    ) -> tuple[Float[Array, "B T P"], RecurrentState]:
        """Runs the cell over x; see the template."""
        if self.remat_every is not None and self.remat_every < 1:
            raise ValueError(
                f"{type(self).__name__}: remat_every={self.remat_every} must be at least 1, or None"
            )
        batch, length, width = x.shape
        dtype = wide(x.dtype)
        input_kernel = self.param(
            "input_kernel", per_gate_lecun, (width, self.gates, self.features), jnp.float32
        )
        recurrent_kernel = self.param("recurrent_kernel", per_gate_orthogonal, self.recurrent_shape)
        bias = self.param("bias", self.bias_init, self.bias_shape, jnp.float32)
        recurrent_kernel = partition.gather(
            recurrent_kernel.astype(x.dtype), split=0 if recurrent_kernel.ndim == 4 else -1
        )
        recurrent_kernel, step_weights = self.step_weights(
            self.noise.drop_weights(self, recurrent_kernel)
        )

        fresh = tuple(jnp.zeros((batch, width), dtype) for width in self.widths)
        carry, steps = resume(self, fresh, state, context)
        drop = self.noise.state_mask(self, (batch, length, self.widths[0]), dtype)
        cell, inputs = self.cell, self.inputs(self.noise.drop_inputs(self, x), drop)
        if self.noise.zoneout > 0.0:
            zoned = self.widths[: self.zoned]
            masks = [self.noise.zoneout_mask(self, (batch, length, size), dtype) for size in zoned]
            missing = (None,) * (self.leaves - len(zoned))
            cell, inputs = cells.zoneout(cell), (inputs, (*masks, *missing))
        hidden_BTP, carry = self._run_or_trace(
            cell,
            self.project_weights(
                partition.gather(input_kernel.astype(x.dtype)), partition.gather(bias)
            ),
            recurrent_kernel,
            inputs,
            carry,
            steps.starts,
            steps.keep,
            step_weights=step_weights,
            drop=drop,
            remat_every=self.remat_every,
        )
        return hidden_BTP.astype(x.dtype), RecurrentState(carry, steps.segment)

    def _run_or_trace(self, *arguments: Any, remat_every: int | None, **options: Any) -> Any:
        """`run`; where the caller collects `intermediates` the reference, which keeps them."""
        if not self.is_mutable_collection("intermediates"):
            return self.run(*arguments, remat_every=remat_every, **options)
        hidden_BTP, carry, carries, gates = tracing.trace_cell(*arguments, **options)
        self.sow("intermediates", "carries", carries)
        self.sow("intermediates", "gates", gates)
        return hidden_BTP, carry


class RNN(Recurrent):
    """The simple recurrent network of Elman.

    `h_t = activation(x_t W + h_{t-1} U + b)`.

    Attributes:
      features: units H.
      activation: an elementwise function, `[B, H]` to `[B, H]`; a module-level one, `nn.relu`, is
        compiled once.
      noise: what is random where rng streams are given.
      remat_every: steps between the carries that are kept for the backward pass; None keeps all.

    Call: `[B, T, D] -> [B, T, H]`; state: `RecurrentState(carry=(h,), segment)`.

    >>> import jax
    >>> layer = RNN(4)
    >>> y, state = layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0]

    Elman, Finding structure in time, 1990.
    """

    activation: Callable[[Array], Array] = jnp.tanh

    gates = 1
    leaves = 1

    @property
    def cell(self) -> recurrence.Cell:
        return cells.elman(self.activation)

    @property
    def bias_init(self) -> nn.initializers.Initializer:
        return nn.initializers.zeros


class LSTM(Recurrent):
    """Long short-term memory.

    `i, f, g, o = x_t W + h_{t-1} U + b`, `c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)`,
    `h_t = sigmoid(o) tanh(c_t)`.

    Attributes:
      features: units H.
      forget_bias: what the bias of f starts at; the others start at 0.
      projection: width P of h, `h_t = (sigmoid(o) tanh(c_t)) R` with `projection_kernel [H, P]`;
        None for H, without R.
      peepholes: whether i and f see `c_{t-1}`, and o sees `c_t`, through `peepholes [3, H]`, which
        start at 0.
      layer_norm: whether `x_t W` and `h_{t-1} U` are normalised, each over all gates, and `c_t`
        inside the last tanh; with `input_scale [4, H]`, `recurrent_scale [4, H]`,
        `cell_scale [H]` and `cell_shift [H]`.
      noise: what is random where rng streams are given.
      remat_every: steps between the carries that are kept for the backward pass; None keeps all.
      implementation: None and "xla" are a scan over time; "cudnn" and "pallas" are kernels for a
        GPU, see `kernels.fused_recurrence`, of the plain cell; they were not measured yet.

    Call: `[B, T, D] -> [B, T, P]`; state: `RecurrentState(carry=(h, c), segment)`.

    Raises:
      ValueError: if `projection` is less than 1, or the implementation cannot do the rest.

    >>> import jax
    >>> layer = LSTM(4)
    >>> y, state = layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0]

    Hochreiter and Schmidhuber, Long short-term memory, 1997; forget gate: Gers et al., 2000;
    peepholes: Gers and Schmidhuber, 2000; projection: Sak et al., 2014, arXiv:1402.1128;
    layer norm: Ba et al., 2016, arXiv:1607.06450.
    """

    forget_bias: float = 1.0
    projection: int | None = None
    peepholes: bool = False
    layer_norm: bool = False
    implementation: str | None = dataclasses.field(default=None, kw_only=True)

    gates = 4
    leaves = 2

    @property
    def cell(self) -> recurrence.Cell:
        return cells.lstm(self.layer_norm)

    @property
    def widths(self) -> tuple[int, ...]:
        if self.projection is not None and self.projection < 1:
            raise ValueError(f"LSTM: projection={self.projection} must be at least 1, or None")
        return (self.features if self.projection is None else self.projection, self.features)

    @property
    def bias_init(self) -> nn.initializers.Initializer:
        def init(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
            del key
            return jnp.zeros(shape, dtype).at[1].set(self.forget_bias)

        return init

    def project_weights(self, input_kernel: Array, bias: Array) -> Any:
        if not self.layer_norm:
            return input_kernel, bias
        return input_kernel, bias, self._vector("input_scale", nn.initializers.ones, self.gates)

    def step_weights(self, recurrent_kernel: Array) -> tuple[Array, tuple[Any, ...]]:
        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        weights = cells.LSTMWeights()
        if self.peepholes:
            weights = weights._replace(peepholes=self._vector("peepholes", zeros, 3))
        if self.layer_norm:
            weights = weights._replace(
                recurrent_scale=self._vector("recurrent_scale", ones, self.gates),
                cell_scale=self._vector("cell_scale", ones),
                cell_shift=self._vector("cell_shift", zeros),
            )
        if self.projection is not None:
            shape, lecun = (self.features, self.projection), nn.initializers.lecun_normal()
            kernel = self.param("projection_kernel", lecun, shape, jnp.float32)
            weights = weights._replace(
                projection=partition.gather(kernel.astype(recurrent_kernel.dtype))
            )
        plain = all(weight is None for weight in weights)
        return recurrent_kernel, () if plain else (weights,)

    def run(
        self, cell: recurrence.Cell, *arguments: Any, **options: Any
    ) -> tuple[Float[Array, "B T P"], recurrence.Carry]:
        if self.implementation in (None, "xla"):
            return super().run(cell, *arguments, **options)
        _refuse_options(self, "projection", "peepholes", "layer_norm", "noise", "remat_every")
        return fused_recurrence.fused_lstm(self.implementation, *arguments)

    def _vector(self, name: str, init: nn.initializers.Initializer, *gates: int) -> Array:
        return partition.gather(self.param(name, init, (*gates, self.features), jnp.float32))


class GRU(Recurrent):
    """The gated recurrent unit.

    `r, z = sigmoid(x_t W + h_{t-1} U + b)`, `h_t = (1 - z) n + z h_{t-1}`, and either, as in torch
    and cuDNN, `n = tanh(x_t W_n + b_n + r (h_{t-1} U_n + b_m))`, or, as it was published,
    `n = tanh(x_t W_n + b_n + (r h_{t-1}) U_n)`.

    Attributes:
      features: units H.
      reset_after: whether r acts after the product with U_n, the first of the two; `bias [4, H]` is
        then r, z, n, m, and `bias [3, H]` is r, z, n otherwise.
      layer_norm: whether the products of x and of h are normalised, r and z together and n by
        itself; with `input_scale [3, H]` and `recurrent_scale [3, H]`.
      noise: what is random where rng streams are given.
      remat_every: steps between the carries that are kept for the backward pass; None keeps all.
      implementation: None and "xla" are a scan over time; "pallas" is a kernel for a GPU, see
        `kernels.fused_recurrence`, of the plain cell; it was not measured yet.

    Call: `[B, T, D] -> [B, T, H]`; state: `RecurrentState(carry=(h,), segment)`.

    >>> import jax
    >>> layer = GRU(4)
    >>> y, state = layer.init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0]

    Cho et al., Learning phrase representations, 2014, arXiv:1406.1078; layer norm: Ba et al., 2016,
    arXiv:1607.06450.
    """

    reset_after: bool = True
    layer_norm: bool = False
    implementation: str | None = dataclasses.field(default=None, kw_only=True)

    gates = 3
    leaves = 1

    @property
    def cell(self) -> recurrence.Cell:
        return cells.gru(self.reset_after, self.layer_norm)

    @property
    def bias_shape(self) -> tuple[int, int]:
        return (4 if self.reset_after else 3, self.features)

    @property
    def bias_init(self) -> nn.initializers.Initializer:
        return nn.initializers.zeros

    def project_weights(self, input_kernel: Array, bias: Array) -> Any:
        if not self.layer_norm:
            return input_kernel, bias
        return input_kernel, bias, self._scale("input_scale")

    def step_weights(self, recurrent_kernel: Array) -> tuple[Array, tuple[Any, ...]]:
        scales = (self._scale("recurrent_scale"),) if self.layer_norm else ()
        if self.reset_after:
            return recurrent_kernel, scales
        return recurrent_kernel[:, :2], (recurrent_kernel[:, 2], *scales)

    def inputs(self, x: Activations, drop: Array | None) -> Any:
        if self.reset_after:
            return x
        if drop is not None:
            drop = jnp.broadcast_to(drop, (*x.shape[:2], self.features))
        return x, drop

    def run(
        self, cell: recurrence.Cell, *arguments: Any, **options: Any
    ) -> tuple[Float[Array, "B T H"], recurrence.Carry]:
        if self.implementation in (None, "xla"):
            return super().run(cell, *arguments, **options)
        _refuse_options(self, "reset_after", "layer_norm", "noise", "remat_every")
        return fused_recurrence.fused_gru(self.implementation, *arguments)

    def _scale(self, name: str) -> Array:
        shape = (self.gates, self.features)
        return partition.gather(self.param(name, nn.initializers.ones, shape, jnp.float32))


def _refuse_options(layer: Any, *names: str) -> None:
    """Raises where one of these fields is not as it is by default."""
    defaults = {field.name: field.default for field in dataclasses.fields(layer)}
    for name in names:
        if (value := getattr(layer, name)) != defaults[name]:
            raise ValueError(
                f"{type(layer).__name__}: implementation={layer.implementation!r} has the plain "
                f"cell only, not {name}={value}; leave that out, or use implementation=None"
            )
