"""Twins of kernels for TPUs; each has the values and gradients of its reference."""
