"""Twins of kernels for NVIDIA GPUs; each has the values and gradients of its reference."""
