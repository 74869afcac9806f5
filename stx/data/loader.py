"""The train loader: from a number of images seen to the batches of one step. No state: `step(n)` is a pure function.

For row n of seed s:
    sample          order.py's n-th
    t, drop, choice three coins of Philox(s; n); t by the run's distribution, stratified if it asks for that (times.py)
    label           the null label for the student if drop < label_dropout
    in_window       low <= t <= high, and n < stop_images
    noise           posterior noise and noise of Philox(s; n)
With a feature cache, a row in the window takes t and both noises from draw k = floor(draws * choice) of its sample
instead (features.py); so row counts and masks are the same with a cache and without. The coins of the whole global
batch are cheap, so every rank knows `window_rows` without talking. A rank owns a contiguous range of the global batch.

One thread prepares the next step while this one runs. Not processes: passing batches between them costs more than
making them (tools/bench/loader.py).
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stx.data import device_noise, noise, times
from stx.data.features import CachedFeatures, FeatureCache, draw_noise, draw_times
from stx.data.latents import Latents, scaled
from stx.data.noise import Purpose
from stx.data.order import Order
from stx.errors import ConfigError
from stx.times import UNIFORM, Distribution

LOADER, DEVICE = "loader", "device"


@dataclass(frozen=True)
class Batch:
    """One micro-batch: rows n = first .. first + B - 1. `window_rows` counts the whole global batch."""

    first: int
    samples: Tensor  # (B,) int64: dataset indices
    latents: Tensor  # (B, C, H, W): x0, scaled
    noise: Tensor  # (B, C, H, W)
    t: Tensor  # (B,)
    labels: Tensor  # (B,) int64: true
    dropped_labels: Tensor  # (B,) int64: what the student sees; null label = num_classes
    in_window: Tensor  # (B,) bool
    window_rows: int
    global_batch: int
    features: CachedFeatures | None  # of the rows in_window, in row order

    def to(self, device: torch.device) -> "Batch":
        """On another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor | CachedFeatures)}
        return replace(self, **moved)


class _Coins(NamedTuple):
    """(B,) each."""

    t: NDArray[np.float32]
    drop: NDArray[np.float32]
    choice: NDArray[np.float32]
    in_window: NDArray[np.bool_]


class _Rows(NamedTuple):
    """A micro-batch before it is a Batch. numpy only: torch would start a second pool of threads in ours."""

    first: int
    samples: NDArray[np.int64]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    t: NDArray[np.float32]
    dropped_labels: NDArray[np.int64]
    in_window: NDArray[np.bool_]
    window_rows: int
    cached: NDArray[np.bool_]  # rows that take their noise from the cache's draw
    draws: NDArray[np.int64]  # of the cached rows
    features: CachedFeatures | None
    made: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None  # latents and noise, unless the device does it


class TrainLoader:
    """`window=None`: nobody uses the window. `order_window`: shards that are shuffled together."""

    def __init__(
        self,
        latents: Latents,
        *,
        seed: int,
        global_batch: int,
        micro_batch: int,
        rank: int = 0,
        world_size: int = 1,
        label_dropout: float = 0.0,
        order_window: int | None = None,
        distribution: Distribution = UNIFORM,
        stratified_t: bool = False,
        window: tuple[float, float] | None = None,
        stop_images: int | None = None,
        features: FeatureCache | None = None,
        noise_on: str = LOADER,
        device: torch.device | None = None,
    ) -> None:
        rows, rest = divmod(global_batch, world_size)
        assert rest == 0 and rows % micro_batch == 0, f"{global_batch} rows on {world_size} ranks by {micro_batch}"
        assert 0 <= rank < world_size
        assert noise_on in (LOADER, DEVICE), noise_on
        if features is not None:
            _check_cache(features, latents=latents, window=window, distribution=distribution)
        self._latents, self._features = latents, features
        self._seed, self._label_dropout = seed, np.float32(label_dropout)
        self._global_batch, self._micro_batch = global_batch, micro_batch
        self._distribution, self._stratified = distribution, stratified_t
        self._own = range(rank * rows, (rank + 1) * rows, micro_batch)
        self._window, self._stop_images = window, math.inf if stop_images is None else stop_images
        self._noise_on_device = noise_on == DEVICE
        self._device = torch.device("cpu") if device is None else device
        self._order = Order(latents.sizes, seed=seed, window=order_window)

    def step(self, first: int) -> list[Batch]:
        """This rank's micro-batches of the global batch that starts at image `first`."""
        return [self._finish(rows) for rows in self._prepare(first)]

    @contextmanager
    def batches(self, first: int, *, until: int | None = None) -> Iterator[Iterator[list[Batch]]]:
        """The steps from image `first` on, the next one prepared in a thread, which ends with the context.

        An error in the thread is raised where its step is asked for.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as thread:
            yield self._steps(thread, first, until=math.inf if until is None else until)

    def _steps(self, thread: ThreadPoolExecutor, first: int, *, until: float) -> Iterator[list[Batch]]:
        ahead = thread.submit(self._prepare, first)
        while first < until:
            prepared = ahead.result()
            first += self._global_batch
            if first < until:
                ahead = thread.submit(self._prepare, first)
            yield [self._finish(rows) for rows in prepared]

    def _prepare(self, first: int) -> list[_Rows]:
        """What the thread does: read, and make the noise unless the device does."""
        coins = self._coins(np.arange(first, first + self._global_batch))
        window_rows = int(coins.in_window.sum())
        prepared = []
        for start in self._own:
            part = slice(start, start + self._micro_batch)
            rows = self._rows(first + start, _Coins(*(coin[part] for coin in coins)), window_rows=window_rows)
            prepared.append(
                rows if self._noise_on_device else rows._replace(made=self._make(rows, rows.mean, rows.std))
            )
        return prepared

    def _finish(self, rows: _Rows) -> Batch:
        """What the consumer does: put it on the device, and make the noise there if it is asked to."""
        if rows.made is None:
            moments = (torch.from_numpy(value).to(self._device) for value in (rows.mean, rows.std))
            latents, drawn = self._make(rows, *moments)
        else:
            latents, drawn = (torch.from_numpy(value) for value in rows.made)
        batch = Batch(
            first=rows.first,
            samples=torch.from_numpy(rows.samples),
            latents=latents,
            noise=drawn,
            t=torch.from_numpy(rows.t),
            labels=torch.from_numpy(self._latents.labels[rows.samples]),
            dropped_labels=torch.from_numpy(rows.dropped_labels),
            in_window=torch.from_numpy(rows.in_window),
            window_rows=rows.window_rows,
            global_batch=self._global_batch,
            features=rows.features,
        )
        return batch.to(self._device)

    def _coins(self, positions: NDArray[np.int64]) -> _Coins:
        uniform, drop, choice = noise.uniforms(self._seed, Purpose.TRAIN_COINS, positions, count=3).T
        if self._stratified:
            uniform = times.stratified(uniform, positions, seed=self._seed, batch=self._global_batch)
        t = times.times_of(uniform, distribution=self._distribution)
        if self._window is None:
            inside = np.zeros(len(positions), dtype=bool)
        else:
            low, high = np.float32(self._window[0]), np.float32(self._window[1])
            inside = (low <= t) & (t <= high) & (positions < self._stop_images)
        return _Coins(t, drop, choice, inside)

    def _rows(self, first: int, coins: _Coins, *, window_rows: int) -> _Rows:
        samples = self._order.indices(np.arange(first, first + len(coins.t)))
        mean, std = self._latents.moments(samples)
        labels, null = self._latents.labels[samples], self._latents.info.num_classes
        t, features = coins.t.copy(), None
        cached, draws = np.zeros(len(t), dtype=bool), np.empty(0, dtype=np.int64)
        if self._features is not None:
            info, cached = self._features.info, coins.in_window
            draws = np.floor(info.draws * coins.choice[cached].astype(np.float64)).astype(np.int64)
            t[cached] = draw_times(
                info.cache_seed, samples[cached], draws, window=info.window, distribution=info.distribution
            )
            features = self._features.gather(samples[cached], draws)
        return _Rows(
            first=first,
            samples=samples,
            mean=mean,
            std=std,
            t=t,
            dropped_labels=np.where(coins.drop < self._label_dropout, null, labels),
            in_window=coins.in_window.copy(),
            window_rows=window_rows,
            cached=cached,
            draws=draws,
            features=features,
        )

    def _make(self, rows: _Rows, mean: Any, std: Any) -> tuple[Any, Any]:
        """Latents and noise: arrays, or with `noise_on: device` tensors there."""
        posterior_noise, drawn = self._noise(rows)
        info = self._latents.info
        return scaled(mean, std, posterior_noise, scale=info.scale, shift=info.shift), drawn

    def _noise(self, rows: _Rows) -> tuple[Any, Any]:
        """Posterior noise and noise, (B, C, H, W) each: of the row itself, or of its sample's draw."""
        pairs, place, shape = *self._maker(), self._latents.shape
        own, cached = np.flatnonzero(~rows.cached), np.flatnonzero(rows.cached)
        made = pairs(self._seed, Purpose.TRAIN_NOISE, place(rows.first + own), count=math.prod(shape))
        slots = [slot.reshape(len(own), *shape) for slot in made]
        if self._features is not None and len(cached):
            seed, samples = self._features.info.cache_seed, rows.samples[cached]
            drawn = draw_noise(seed, place(samples), place(rows.draws), shape=shape, pairs=pairs)
            to_row = place(np.argsort(np.concatenate([own, cached])))
            join = torch.cat if self._noise_on_device else np.concatenate
            slots = [join([ours, theirs])[to_row] for ours, theirs in zip(slots, drawn, strict=True)]
        return slots[0], slots[1]

    def _maker(self) -> tuple[Any, Any]:
        """Who makes normals, and what puts indices where it wants them."""
        if self._noise_on_device:
            return device_noise.normal_pairs, lambda array: torch.from_numpy(array).to(self._device)
        return noise.normal_pairs, lambda array: array


def _check_cache(
    cache: FeatureCache, *, latents: Latents, window: tuple[float, float] | None, distribution: Distribution
) -> None:
    """The plan has compared the options; this compares what is on disk."""
    if window is None or cache.info.window != tuple(window):
        raise ConfigError(f"the cache holds features for t in {list(cache.info.window)}, the run's window is {window}")
    if cache.info.distribution != distribution:
        raise ConfigError(f"the cache's t are of {cache.info.distribution}, the run's of {distribution}")
    if cache.info.count != latents.num_samples:
        raise ConfigError(f"the cache holds {cache.info.count} samples, the latents {latents.num_samples}")
