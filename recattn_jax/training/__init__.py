"""Training: experiments as values, one step, one loop, checkpoints that tell when they are damaged."""
