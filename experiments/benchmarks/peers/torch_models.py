"""What is compared, of torch's own layers; on a GPU where JAX has one too."""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from experiments.benchmarks.peers import ModelShape, Shape

_ON_GPU = torch.cuda.is_available()


def device() -> str:
    """Where JAX computes, if torch can too."""
    return "cuda" if jax.default_backend() == "gpu" and _ON_GPU else "cpu"


def wait() -> None:
    """Until all is computed."""
    if device() == "cuda":
        torch.cuda.synchronize()


def use_all_cores() -> None:
    """As many threads as this process may use cores."""
    # Only Linux lets a process be pinned to some of them.
    pinned = hasattr(os, "sched_getaffinity")
    torch.set_num_threads(len(os.sched_getaffinity(0)) if pinned else os.cpu_count() or 1)


class First(nn.Module):
    """A recurrent layer without its state."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


class Attention(nn.Module):
    """Causal self-attention with projections, of all steps before, of a window, or in chunks."""

    def __init__(self, width: int, heads: int, window: int = 0, chunk: int = 0):
        super().__init__()
        self.heads, self.window, self.chunk = heads, window, chunk
        self.joined = nn.Linear(width, 3 * width, bias=False)  # as in nn.MultiheadAttention
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = x.shape
        if self.chunk:
            x = x.reshape(-1, min(self.chunk, shape[1]), shape[2])
        parts = self.joined(x).chunk(3, dim=-1)
        queries, keys, values = (split_heads(part, self.heads) for part in parts)
        mask = band(x.shape[1], self.window, x.device) if self.window else None
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=mask is None
        )
        return self.out(mixed.transpose(1, 2).reshape(x.shape)).reshape(shape)


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """`[B, T, D] -> [B, H, T, K]`."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def band(steps: int, window: int, where: Any) -> torch.Tensor:
    """Whether t sees s: not later, and less than a window before."""
    seen = torch.ones(steps, steps, dtype=torch.bool, device=where).tril()
    return seen.triu(1 - window) if window else seen


class RGLRU(nn.Module):
    """The linear recurrence of Griffin, a step at a time: torch has no associative scan."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        size = width // heads
        self.kernel = nn.Parameter(torch.randn(heads, size, 2, size) / size**0.5)
        self.bias = nn.Parameter(torch.zeros(2, 1, 1, heads, size))
        self.decay = nn.Parameter(torch.full((width,), -5.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads, size = self.kernel.shape[:2]
        blocks = x.reshape(*x.shape[:2], heads, size)
        gates = torch.einsum("bthk,hkgj->gbthj", blocks, self.kernel) + self.bias
        r, i = torch.sigmoid(gates.float()).reshape(2, *x.shape)
        log_decay = -8.0 * functional.softplus(self.decay.float()) * r
        room = torch.clamp(-torch.expm1(2.0 * log_decay), min=1e-12)
        decay, new = torch.exp(log_decay), torch.sqrt(room) * i * x
        hidden, all_hidden = torch.zeros_like(new[:, 0]), []
        for a, b in zip(decay.unbind(1), new.unbind(1), strict=True):
            hidden = torch.addcmul(b, a, hidden)
            all_hidden.append(hidden)
        return torch.stack(all_hidden, dim=1).to(x.dtype)


def layers(shape: Shape) -> dict[str, Callable[[], nn.Module]]:
    """By the names that `layers` compares."""
    width, units, window = shape.width, shape.units, shape.window
    return {
        "LSTM": lambda: First(nn.LSTM(width, units, batch_first=True)),
        "GRU": lambda: First(nn.GRU(width, units, batch_first=True)),
        "RNN": lambda: First(nn.RNN(width, units, batch_first=True)),
        "RG-LRU": lambda: RGLRU(width, units),
        "attention": lambda: Attention(width, units),
        "windowed attention": lambda: Attention(width, units, window=window),
        "chunked attention": lambda: Attention(width, units, chunk=window),
    }


def passes(layer: nn.Module, x: np.ndarray, dtype: str) -> dict[str, Callable[[], None]]:
    """Forward, and forward with the gradients of parameters and inputs, of the mean square."""
    use_all_cores()
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    layer = layer.to(device(), kind)
    tensor = torch.tensor(x, dtype=kind, device=device(), requires_grad=True)

    def forward() -> None:
        with torch.no_grad():
            layer(tensor).square().mean()
        wait()

    def both() -> None:
        layer.zero_grad()
        tensor.grad = None
        layer(tensor).square().mean().backward()
        wait()

    return {"forward": forward, "forward+backward": both}


class S3(nn.Module):
    """An LSTM beside self-attention between an embedding and a readout."""

    def __init__(self, shape: ModelShape):
        super().__init__()
        self.embed = nn.Embedding(shape.vocabulary, shape.width)
        self.recurrence = nn.LSTM(shape.width, shape.width, batch_first=True)
        self.attention = Attention(shape.width, shape.heads, shape.window)
        self.readout = nn.Linear(shape.width, shape.vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        return self.readout(self.recurrence(x)[0] + self.attention(x))


class LocalAttention(nn.Module):
    """Attention to a window with rotary positions and one head of keys and values."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.heads, self.window = heads, window
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width // heads, bias=False)
        self.value = nn.Linear(width, width // heads, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        queries = rotate(split_heads(self.query(x), self.heads))
        keys, values = rotate(split_heads(self.key(x), 1)), split_heads(self.value(x), 1)
        keys, values = (part.expand(-1, self.heads, -1, -1) for part in (keys, values))
        mask = band(x.shape[1], self.window, x.device)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions, `[B, H, T, K]`."""
    half = x.shape[-1] // 2
    places = torch.arange(x.shape[2], device=x.device)[:, None]
    angles = places * 10_000.0 ** (-torch.arange(half, device=x.device) / half)
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class GriffinRecurrence(nn.Module):
    """A gate beside a short convolution and the linear recurrence."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.gate = nn.Linear(width, width)
        self.inner = nn.Linear(width, width)
        self.convolution = nn.Conv1d(width, width, 4, padding=3, groups=width)
        self.recurrence = RGLRU(width, heads)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = self.convolution(self.inner(x).transpose(1, 2))[..., : x.shape[1]]
        hidden = self.recurrence(mixed.transpose(1, 2))
        return self.out(functional.gelu(self.gate(x), approximate="tanh") * hidden)


class GriffinBlock(nn.Module):
    """A mixer and a gated MLP, each residual behind a norm."""

    def __init__(self, shape: ModelShape, attends: bool):
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(shape.width, eps=1e-6) for _ in range(2))
        self.mixer = (
            LocalAttention(shape.width, shape.heads, shape.window)
            if attends
            else GriffinRecurrence(shape.width, shape.heads)
        )
        self.gate = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.mixer(self.norms[0](x))
        normed = self.norms[1](x)
        return x + self.down(functional.silu(self.gate(normed)) * self.up(normed))


class Griffin(nn.Module):
    """Two blocks of recurrence, one of local attention, over and over."""

    def __init__(self, shape: ModelShape):
        super().__init__()
        self.embed = nn.Embedding(shape.vocabulary, shape.width)
        blocks = (GriffinBlock(shape, attends=i % 3 == 2) for i in range(shape.depth))
        self.body = nn.Sequential(*blocks, nn.RMSNorm(shape.width, eps=1e-6))
        self.readout = nn.Linear(shape.width, shape.vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.readout(self.body(self.embed(tokens)))


MODELS: dict[str, Callable[[ModelShape], nn.Module]] = {"S3": S3, "Griffin": Griffin}


def train_step(
    model: nn.Module, tokens: np.ndarray, targets: np.ndarray, rate: float
) -> tuple[Callable[[], float], int]:
    """A step of Adam, which goes on from the last one's parameters and gives the loss.

    Args:
      model: from tokens to logits.
      tokens: `[B, T]`.
      targets: `[B, T]`.
      rate: learning rate.

    Returns:
      The step, and the number of parameters.
    """
    use_all_cores()
    model = model.to(device())
    inputs, wanted = (torch.tensor(part, device=device()).long() for part in (tokens, targets))
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)

    def step() -> float:
        optimizer.zero_grad()
        logits = model(inputs)
        loss = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        loss.backward()
        optimizer.step()
        return loss.item()  # waits

    return step, sum(parameter.numel() for parameter in model.parameters())


def steps(width: int, heads: int, window: int) -> dict[str, Callable[[int], Callable[[], None]]]:
    """Single steps of streams: by name, from a position to a call that does one step there."""
    use_all_cores()
    lstm = nn.LSTM(width, width, batch_first=True).to(device())
    attention = Attention(width, heads).to(device())
    token = torch.randn(1, 1, width, device=device())

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(*shape, device=device())

    def mix(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        attention.out(mixed.transpose(1, 2).reshape(1, 1, width))
        wait()

    def project() -> list[torch.Tensor]:
        parts = attention.joined(token).chunk(3, dim=-1)
        return [split_heads(part, heads) for part in parts]

    def recurrent(position: int) -> Callable[[], None]:
        del position  # the state has one size
        state = zeros(1, 1, width), zeros(1, 1, width)

        def step() -> None:
            with torch.inference_mode():
                lstm(token, state)
            wait()

        return step

    def growing(position: int) -> Callable[[], None]:
        cache = [zeros(1, heads, position, width // heads) for _ in range(2)]

        def step() -> None:
            with torch.inference_mode():
                queries, *new = project()
                mix(queries, *(torch.cat(pair, dim=2) for pair in zip(cache, new, strict=True)))

        return step

    def ring(position: int) -> Callable[[], None]:
        cache = [zeros(1, heads, window, width // heads) for _ in range(2)]
        slot = position % window

        def step() -> None:
            with torch.inference_mode():
                queries, *new = project()
                for kept, one in zip(cache, new, strict=True):
                    kept[:, :, slot] = one[:, :, 0]
                mix(queries, *cache)

        return step

    return {
        "torch LSTM": recurrent,
        "torch attention, growing cache": growing,
        "torch attention, ring buffer": ring,
    }
