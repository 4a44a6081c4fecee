"""The one training loop, for every task: batches in, updates, validation, checkpoints, the weights to use."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any

from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast, gather_object, set_seed
from tqdm import tqdm

from mmfusion.data.sampler import EpochSampler, Turn, class_pools
from mmfusion.training.allocation import keep_freed_memory
from mmfusion.training.checkpoint import (
    Progress,
    State,
    load_checkpoint,
    random_state,
    remove_checkpoints,
    save_checkpoint,
    save_weights,
)
from mmfusion.training.extract import extract_frozen
from mmfusion.training.log import Log
from mmfusion.training.optimise import learning_rate_factor, make_average, make_optimiser, set_learning_rate
from mmfusion.training.parts import load_parts, load_start, tunable, tune_mixes
from mmfusion.training.provenance import provenance
from mmfusion.training.run import RESULTS, Run, RunConfig
from mmfusion.training.setup import keep_training_clips, knows_training_clips, open_material
from mmfusion.training.thresholds import tune_run
from mmfusion.training.validate import figure_of, is_better, validate
from mmfusion.types import Batch, InputError


def train(config: RunConfig, quiet: bool = False) -> Run:
    """Trains into the run's folder and returns it; takes up an interrupted run, leaves a finished one alone.

    Raises InputError for settings or data that cannot be used, KeyboardInterrupt (after a checkpoint) when the
    process is asked to stop.
    """
    run = Run.begun(config) or Run(config.folder, config)
    if not run.finished:
        keep_freed_memory()
        AcceleratorState._reset_state()  # precision is fixed once a process otherwise; runs may differ in it
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        precision = "no" if config.training.precision == "fp32" else config.training.precision
        accelerator = Accelerator(mixed_precision=precision, kwargs_handlers=[unused])
        with run.locked() if accelerator.is_main_process else nullcontext():
            if accelerator.is_main_process:
                Run.create(config)
            accelerator.wait_for_everyone()
            if not run.finished:
                Trainer(run, accelerator, quiet).fit()
    return run


class Trainer:
    """Model, optimiser and position of one run in one process."""

    def __init__(self, run: Run, accelerator: Accelerator, quiet: bool) -> None:
        self.run, self.accelerator = run, accelerator
        self.config, self.settings = run.config, run.config.training
        self.quiet = quiet or not accelerator.is_main_process
        self.material = open_material(run, accelerator, quiet)
        self.clips = self.material.clips(self.config.data.train_split)
        if not knows_training_clips(run, self.material) and any(run.folder.glob("checkpoint-*")):
            said = f"split {self.config.data.train_split!r} holds other clips than when {run.folder} began"
            raise InputError(f"{self.material.manifest.path}: {said}; restore them, or give the run another name")
        if accelerator.is_main_process:
            keep_training_clips(run, self.material)
        self.pools = class_pools(self.clips) if self.settings.sampling == "balanced" else None
        if self.settings.select is not None or self.config.tuned_heads:
            self.material.clips(self.config.data.validation_split)
        set_seed(self.config.seed)
        model = self.material.build_model(run)
        if tunable(model):
            self.material.clips(self.config.data.validation_split)
        load_start(model, self.settings.start_from, run)
        load_parts(model, self.settings.parts_from, run)
        if self.settings.cache_frozen:
            self.material = extract_frozen(model, self.material, run, accelerator, self.quiet)
        average = make_average(model.to(accelerator.device), self.settings.ema)
        self.model, optimiser = accelerator.prepare(model, make_optimiser(self.settings.optimiser, model))
        self.state = State(model, optimiser, average, accelerator.scaler, Progress(world=accelerator.num_processes))
        self.progress = self.state.progress
        # Every process draws its own dropout masks, each from a seed that a resumed run restores.
        set_seed(self.config.seed + accelerator.process_index)
        load_checkpoint(run.folder, self.state, accelerator.process_index)
        self.updates_per_epoch = -(-len(self._batches(0, 0)) // self.settings.accumulate)
        self.num_updates = self.updates_per_epoch * self.settings.epochs

    def fit(self) -> None:
        """Trains to the end and writes the weights to use."""
        main = self.accelerator.is_main_process
        where = (self.progress.update, self.progress.epoch)
        self.log = Log(self.run.folder, *where, self.settings.tensorboard, writing=main)
        started = time.perf_counter() - self.progress.seconds
        bar = tqdm(total=self.num_updates, initial=self.progress.update, desc=f"train {self.run.folder}", unit="update",
                   disable=self.quiet)  # fmt: skip
        try:
            with bar, _stop_signals() as stop:
                while self.progress.epoch < self.settings.epochs and not self._out_of_patience():
                    self._epoch(bar, started, stop)
            self._finish()
        finally:
            self.log.close()

    def _epoch(self, bar: Any, started: float, stop: threading.Event) -> None:
        progress, every = self.progress, self.settings.checkpoint_every
        waiting = _Timed(self._loader(progress.epoch, progress.batch))
        for group in _grouped(waiting, self.settings.accumulate):
            self._update(group)
            progress.seconds = time.perf_counter() - started
            progress.data_seconds, waiting.seconds = progress.data_seconds + waiting.seconds, 0.0
            bar.update()
            bar.set_postfix(epoch=progress.epoch, loss=progress.sums["loss"] / progress.counts["loss"], refresh=False)
            if self._asked_to_stop(stop):
                self._checkpoint()
                raise KeyboardInterrupt
            if every and progress.update % every == 0:
                self._checkpoint()
        self._close_epoch()
        progress.seconds = time.perf_counter() - started
        self._checkpoint()

    def _update(self, batches: Sequence[Batch]) -> None:
        """One optimiser step over the mean gradient of the batches."""
        plain, progress = self.state.model, self.progress
        self.model.train()
        for position, batch in enumerate(batches):
            last = position == len(batches) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                moved = batch.to(self.accelerator.device)
                outputs = self.model(moved)
                total, parts = plain.loss(outputs, moved.targets)  # type: ignore[operator]
                self._count({"loss": total, **parts})
                if total.requires_grad:  # a model that is frozen altogether has nothing to learn
                    self.accelerator.backward(total / len(batches))
        if self.settings.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        set_learning_rate(self.state.optimiser, self._learning_rate_factor(progress.update))
        self.state.optimiser.step()
        self.state.optimiser.zero_grad()
        if self.state.average is not None:
            self.state.average.update_parameters(plain)
        progress.update += 1
        progress.batch += len(batches)

    def _learning_rate_factor(self, update: int) -> float:
        schedule = self.settings.schedule
        return learning_rate_factor(schedule, update, self.num_updates, self.updates_per_epoch)

    def _count(self, losses: dict[str, Any]) -> None:
        for name, loss in losses.items():
            value = float(loss.detach())
            if not math.isfinite(value):
                raise InputError(f"{self.run.folder}: {name} is {value} at update {self.progress.update}; "
                                 "lower training.optimiser.lr or use training.precision=fp32")  # fmt: skip
            self.progress.sums[name] = self.progress.sums.get(name, 0.0) + value
            self.progress.counts[name] = self.progress.counts.get(name, 0) + 1

    def _asked_to_stop(self, stop: threading.Event) -> bool:
        """True in every process as soon as one was asked, so that none waits for the others in vain."""
        if self.accelerator.num_processes == 1:
            return stop.is_set()
        return any(gather_object([stop.is_set()]))

    def _close_epoch(self) -> None:
        """Figures of the epoch, validation, and the choice of weights."""
        progress = self.progress
        every = gather_object([(progress.sums, progress.counts)])
        means = {
            name: sum(sums[name] for sums, _ in every) / sum(counts[name] for _, counts in every)
            for name in progress.sums
        }
        factor = self._learning_rate_factor(progress.update - 1)
        means["lr"] = float(self.state.optimiser.param_groups[0]["full_lr"]) * factor
        means["wait_share"] = progress.data_seconds / max(progress.seconds, 1e-9)
        self.log.write(progress.update, progress.epoch, "train", means)
        progress.sums, progress.counts = {}, {}
        progress.batch, progress.epoch = 0, progress.epoch + 1
        last = progress.epoch == self.settings.epochs
        if last or progress.epoch % self.settings.validate_every == 0:
            self._validate()

    def _validate(self) -> None:
        progress, select = self.progress, self.settings.select
        if self.accelerator.num_processes > 1:  # running statistics drift apart, and one process's are kept
            for buffer in self._chosen_model().buffers():
                buffer.copy_(broadcast(buffer))
        figures = validate(self._chosen_model(), self.material, self.run, self.accelerator)
        self.log.write(progress.update, progress.epoch - 1, "validation", figures)
        if select is None:
            return
        value = figure_of(figures, select, self.run)
        progress.stale += 1
        if progress.best is None or is_better(value, progress.best, select):
            progress.best, progress.best_epoch, progress.stale = value, progress.epoch - 1, 0
            self._keep_weights()

    def _out_of_patience(self) -> bool:
        patience = self.settings.patience
        return patience is not None and self.progress.stale * self.settings.validate_every >= patience

    def _finish(self) -> None:
        """Tunes what is tuned on validation, keeps the weights to use, and writes down where they come from."""
        if self.progress.best is None:
            self._keep_weights()
        tune_mixes(self.run, self.material, self.accelerator, self.quiet)
        tune_run(self.run, self.material, self.accelerator, self.quiet)
        if self.accelerator.is_main_process:
            self.run.forget(*RESULTS)
            self.run.write_json("provenance.json", provenance(self.run, self.material, self.state.model, self.progress))
            self.run.write_json(
                "finished.json", {"epochs": self.progress.epoch, "best_epoch": self.progress.best_epoch}
            )
            if not self.settings.keep_state:
                remove_checkpoints(self.run.folder)
        self.accelerator.wait_for_everyone()

    def _keep_weights(self) -> None:
        if self.accelerator.is_main_process:
            save_weights(self._chosen_model().state_dict(), self.run.weights)

    def _chosen_model(self) -> Any:
        return self.state.model if self.state.average is None else self.state.average.module

    def _checkpoint(self) -> None:
        states = gather_object([random_state()])
        if self.accelerator.is_main_process:
            save_checkpoint(self.run.folder, self.state, states)
        self.accelerator.wait_for_everyone()

    def _batches(self, epoch: int, start: int) -> list[list[int | Turn]]:
        sampler = EpochSampler(
            len(self.clips), self.settings.batch_size, self.config.seed, epoch=epoch, start_batch=start,
            rank=self.accelerator.process_index, world=self.accelerator.num_processes, pools=self.pools,
        )  # fmt: skip
        return list(sampler)

    def _loader(self, epoch: int, start: int) -> Any:
        return self.material.loader(self.clips, self._batches(epoch, start), self.config, training=True, epoch=epoch)


class _Timed:
    """Iterates and adds up the seconds spent waiting for the next item."""

    def __init__(self, items: Any) -> None:
        self.items, self.seconds = items, 0.0

    def __iter__(self) -> Iterator[Any]:
        iterator = iter(self.items)
        while True:
            began = time.perf_counter()
            item = next(iterator, None)
            self.seconds += time.perf_counter() - began
            if item is None:
                return
            yield item


def _grouped(items: Any, size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that training stops between two updates; a second one stops at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
