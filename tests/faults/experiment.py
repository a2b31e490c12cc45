"""A run of a second that exercises all state: carry, average, accumulation, patience."""

from ml_collections import config_dict

from tests.faults.by_workers import ByWorkers
from tests.training.toy import Counting, toy


def get_config():
    """Numbers and short strings."""
    config = config_dict.ConfigDict()
    config.seed = 0
    config.steps = 24
    config.workers = False
    return config.lock()


def build(c):
    """The experiment; opens nothing."""
    experiment, _ = toy(
        seed=c.seed,
        steps=c.steps,
        train=(ByWorkers if c.workers else Counting)(8, 12, 16, seed=0),
        evaluate_every=4,
        save_every=3,
        patience=100,
        ema_decay=0.9,
        carry_state=True,
        accumulate=2,
    )
    return experiment
