"""Runs of a comparison, several at a time: those that are finished are left alone, those cut off are taken up."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mmfusion.config import load, to_tree, validate
from mmfusion.data.cache import ClipCache, build_cache
from mmfusion.data.catalog.registry import check_prepared, prepare_set, settings
from mmfusion.data.manifest import Manifest, read_manifest
from mmfusion.data.mixtures.gather import decoded_manifest
from mmfusion.data.mixtures.stored import open_sources
from mmfusion.ensemble import ensemble_done
from mmfusion.report.baseline_runs import baseline_done, heard_whole, make_baseline
from mmfusion.report.comparison import Baseline, ComparisonConfig, Ensemble, Job, Reranked
from mmfusion.report.reranked import evaluate_reranked, reranked_done
from mmfusion.training.language import LmRunConfig, train_lm
from mmfusion.training.provenance import check_sources, sources_of
from mmfusion.training.run import Run, RunConfig
from mmfusion.training.setup import in_whole
from mmfusion.types import InputError


def make_ready(comparison: ComparisonConfig, jobs: Sequence[Job], language_models: Sequence[Path] = ()) -> None:
    """Prepares the data sets that are not there yet, trains the language models and decodes all clips once.

    Clips that are evaluated in windows are decoded whole, too: several runs would do it side by side otherwise.
    """
    for wanted in comparison.prepare:
        out, config = Path(wanted.out), settings(wanted.name, wanted.options)
        if any(out.rglob("manifest.jsonl")):
            check_prepared(wanted.name, out, config)
        else:
            root = Path(wanted.root) if wanted.root else None
            print(prepare_set(wanted.name, root, out, config, os.cpu_count() or 1).summary())
    for path in language_models:
        train_lm(load(LmRunConfig, path))
    seen: list[Any] = []
    for job in jobs:
        _decode(job.config, None, seen)
        if job.config.windows is not None:
            _decode(job.config, heard_whole(job.config, comparison.split, job.instead), seen)


def _decode(config: RunConfig, whole: list[str] | None, seen: list[Any]) -> None:
    """Decodes all clips of a run as training reads them, or those of some splits whole, unless it is among `seen`."""
    data, windows = config.data, config.windows
    key = (
        data.manifest,
        data.cache,
        data.max_duration_s,
        data.inputs,
        data.mixture,
        data.stored_sources,
        whole,
        whole and windows,
    )
    if key in seen:
        return
    seen.append(key)
    manifest, _ = decoded_manifest(read_manifest(Path(data.manifest)), data)
    if whole is not None and windows is not None:
        manifest, data = in_whole(manifest, whole, data, windows)
    report = build_cache(manifest, data)
    print("\n".join(report.lines()))
    if data.stored_sources and whole is None:
        print("\n".join(open_sources(ClipCache(manifest, data, report.wanted), data)[1].lines()))


def execute(comparison: ComparisonConfig, jobs: Sequence[Job]) -> None:
    """Trains and evaluates every job that is not done, parts before what is built from them.

    The first error is raised when the runs that have begun are done; no other is begun, and what was finished stays.
    """
    missing = [job for job in jobs if not _done(job, comparison.split)]
    if not missing:
        return
    workers = min(comparison.workers or torch.cuda.device_count() or os.cpu_count() or 1, len(missing))
    context = get_context("spawn")
    numbers = context.SimpleQueue()
    for number in range(workers):
        numbers.put(number)
    with ProcessPoolExecutor(workers, context, _start_worker, (numbers, workers)) as pool:
        try:
            _drain(pool, missing, jobs, comparison.split, workers)
        except BrokenProcessPool as error:
            reason = "a run's process was ended from outside (out of memory?)"
            raise InputError(f"{comparison.name}: {reason}; set workers lower or run the same command again") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _drain(pool: ProcessPoolExecutor, missing: list[Job], jobs: Sequence[Job], split: str, workers: int) -> None:
    """Hands out the jobs whose parts are finished, as workers become free."""
    waiting, running = list(missing), {}
    unfinished = {job.config.folder for job in missing}
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc="runs", unit="run")
    with bar:
        while waiting or running:
            ready = [job for job in waiting if not unfinished & set(job.needs)]
            # No more than the workers can begin: what is only queued could not be called back on an interrupt.
            for job in ready[: workers - len(running)]:
                running[pool.submit(_run, to_tree(job.config), split, job.instead)] = job
                waiting.remove(job)
            done: set[Future[None]] = wait(running, return_when=FIRST_COMPLETED).done
            for future in done:
                job = running.pop(future)
                future.result()
                unfinished.discard(job.config.folder)
                bar.set_postfix_str(job.config.name, refresh=False)
                bar.update()


def _done(job: Job, split: str) -> bool:
    """True when the run's numbers are there. InputError when they were made with other settings than the job's."""
    run = Run(job.config.folder, job.config)
    match job.instead:
        case Baseline():
            return baseline_done(job.config, job.instead, split)
        case Ensemble(folders):
            return ensemble_done(folders, job.config, split)
        case Reranked():
            return reranked_done(run.folder, job.instead, split)
    if not (run.finished and run.scored(split)):
        return False
    Run.create(job.config)
    check_sources(run, sources_of(job.config))
    metrics = run.read_json(f"metrics.{split}.json")
    manifest = Path(job.config.data.manifest)
    if manifest.exists() and metrics.get("manifest", "") not in ("", Manifest(manifest, ()).file_hash()):
        raise InputError(f"{run.folder}: was scored with another {manifest}; delete the folder to train it anew")
    return True


def _start_worker(numbers: SimpleQueue[int], workers: int) -> None:
    """Gives each worker its share of the cores, and a GPU of its own where there are several."""
    # A worker whose comparison was killed must not go on writing into folders that the next one uses.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    number = numbers.get()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    devices = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    if "," in devices:
        own = devices.split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = own[number % len(own)]


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(tree: dict[str, Any], split: str, instead: Baseline | Ensemble | Reranked | None) -> None:
    from mmfusion.ensemble import evaluate_ensemble
    from mmfusion.evaluate import evaluate
    from mmfusion.training.loop import train

    config = validate(RunConfig, tree, tree["name"])
    match instead:
        case Baseline():
            make_baseline(config, instead, split)
        case Ensemble(folders):
            evaluate_ensemble(folders, config, split)
        case Reranked():
            evaluate_reranked(instead, config, split)
        case None:
            evaluate(train(config, quiet=True), split, quiet=True)
