"""A pipeline whose batches are made in processes of their own, through grain's `mp_prefetch`.

The package's own pipelines have threads only; but an experiment may bring any.
"""

import grain
import numpy as np

from tests.training.toy import Counting


class Numbers:
    """A source that is its own indices."""

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, index: int) -> np.ndarray:
        return np.int32(index)


class ByWorkers(Counting):
    """The same batches."""

    def batches(self, start):
        made = grain.MapDataset.source(Numbers())[start:].map(self.batch).to_iter_dataset()
        return iter(made.mp_prefetch(grain.MultiprocessingOptions(num_workers=1)))
