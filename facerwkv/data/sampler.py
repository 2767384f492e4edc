"""The order of an epoch, and a loader over it that resumes in mid-epoch."""

from collections.abc import Iterator, Mapping

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from facerwkv.data.augment import keyed_rng

Batch = dict[str, Tensor]


class SeededSampler(DistributedSampler):
    """The order of an epoch, a function of (seed, epoch): a permutation, or as many draws that balance the classes.

    `set_epoch` chooses the epoch; `start` leaves out that many samples of the next pass, for a resumed epoch. With
    several replicas (devices) each takes every n-th sample, the first ones again where the last round is short, or
    where the last batch of `batch_size` would have a single sample, of which batch normalisation has no variance. It is
    a DistributedSampler so that Lightning puts none of its own in its place.
    """

    def __init__(
        self,
        classes: Tensor,
        seed: int,
        balanced: bool = False,
        replicas: int = 1,
        rank: int = 0,
        batch_size: int | None = None,
    ):
        super().__init__(classes, num_replicas=replicas, rank=rank, seed=seed)  # type: ignore[arg-type]
        if batch_size and batch_size > 1 and self.num_samples % batch_size == 1:
            self.num_samples, self.total_size = self.num_samples + 1, self.total_size + replicas
        shares = 1 / np.bincount(classes.numpy())[classes.numpy()]
        self.weights = shares / shares.sum() if balanced else None  # probabilities, (N,)
        self.start = 0

    def __iter__(self) -> Iterator[int]:
        rng, count = keyed_rng(self.seed, self.epoch), len(self.dataset)  # type: ignore[arg-type]
        order = rng.permutation(count) if self.weights is None else rng.choice(count, count, p=self.weights)
        own = np.resize(order, self.total_size)[self.rank :: self.num_replicas]
        return iter(own[self.start :].tolist())


class TrainLoader(DataLoader):
    """A DataLoader over a SeededSampler that can stop in mid-epoch and resume with the next batch.

    It follows Lightning's protocol for stateful loaders: `state_dict` has the epoch and how many of its batches were
    handed out, in plain numbers; after `load_state_dict` the next pass over that epoch leaves those out. Nothing is
    read before the first batch is asked for: Lightning makes the iterator first and tells the epoch then. A pass that
    comes to its end moves on to the next epoch by itself. Save between batches: a batch handed out counts as done.
    """

    sampler: SeededSampler
    batch_size: int
    _epoch, _done = 0, 0
    _resumed: Mapping[str, int] = {}

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        resumed, self._resumed = self._resumed, {}
        self._epoch = self.sampler.epoch
        self._done = resumed["batches"] if resumed.get("epoch") == self._epoch else 0
        self.sampler.start = self._done * self.batch_size
        for batch in super().__iter__():
            self._done += 1
            yield batch
        self.sampler.set_epoch(self._epoch + 1)
        self._epoch, self._done = self._epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return dict(self._resumed) or {"epoch": self._epoch, "batches": self._done}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self._resumed = dict(state)
        self.sampler.set_epoch(state["epoch"])
