"""Weights to and from torch, Flax and Keras: plain functions on arrays; no framework is imported.

`torch.lstm_from(state_dict)` gives the params of our layer, `torch.lstm_to(params)` the state dict;
recurrent layers and attention have such pairs. They take anything that `numpy.asarray` takes, and
give numpy arrays of the same dtype.
"""

from recattn_jax.interop import flax, keras, torch

__all__ = ["flax", "keras", "torch"]
