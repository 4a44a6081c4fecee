"""What a run works on: manifest, cache, facts, vocabulary, and batches of its clips."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from torch import Generator
from torch.utils.data import DataLoader

from mmfusion.data.cache import build_cache
from mmfusion.data.clips import ClipCache
from mmfusion.data.dataset import ClipDataset, DatasetOver, collate, gather_facts
from mmfusion.data.inputs import DataConfig, FeaturesInput
from mmfusion.data.manifest import Manifest, check_groups, read_manifest
from mmfusion.data.mixtures.clips import MixtureDataset, Mixtures
from mmfusion.data.mixtures.gather import decoded_manifest
from mmfusion.data.mixtures.pool import in_words
from mmfusion.data.mixtures.stored import StoredDataset, StoredManifest, StoredSources, open_sources
from mmfusion.data.reading import ClipReader
from mmfusion.data.sampler import Batches
from mmfusion.data.scaling import gather_scaling
from mmfusion.data.windows import WindowReader, WindowsConfig
from mmfusion.heads.caption import CaptionConfig
from mmfusion.heads.labels import LabelsConfig
from mmfusion.language.vocab import Vocabulary
from mmfusion.model import FusionModel, build_model
from mmfusion.training.run import FEATURES, TRAINING_CLIPS, Run, RunConfig
from mmfusion.types import Batch, Clip, Facts, InputError


@dataclass(frozen=True)
class Material:
    """The opened data of a run. With `mixtures`, the clips of the manifest are mixtures of those in the cache; with
    `stored`, they are mixtures that lie in files, and those are their sources."""

    manifest: Manifest
    cache: ClipCache
    facts: Facts
    vocabulary: Vocabulary | None
    mixtures: Mixtures | None = None
    stored: StoredSources | None = None

    def clips(self, split: str) -> tuple[Clip, ...]:
        """The readable clips of a split; InputError when there are none."""
        found = self.manifest.split(split)
        clips = self.cache.usable(found) if self.mixtures is None else found
        clips = clips if self.stored is None else self.stored.complete(clips)
        if not clips:
            known = ", ".join(self.manifest.splits)
            raise InputError(f"{self.manifest.path}: split {split!r} has no readable clip (splits here: {known})")
        return clips

    def in_windows(self, split: str, data: DataConfig, windows: WindowsConfig, quiet: bool = True
                   ) -> tuple[tuple[Clip, ...], WindowReader]:  # fmt: skip
        """The readable clips of a split, decoded whole, and what reads their windows. InputError without any clip."""
        manifest, data = in_whole(self.manifest, [split], data, windows)
        report = build_cache(manifest, data, progress=not quiet)
        if not quiet:
            print("\n".join(report.lines()))
        cache = ClipCache(manifest, data, report.wanted)
        clips = cache.usable(manifest.clips)
        if not clips:
            raise InputError(f"{manifest.path}: split {split!r} has no readable clip")
        return clips, WindowReader(cache, clips, windows)

    def dataset(self, clips: Sequence[Clip], config: RunConfig, training: bool, reader: ClipReader | None = None
                ) -> ClipDataset | DatasetOver:  # fmt: skip
        encode = None
        if self.vocabulary is not None:
            encode = partial(self.vocabulary.encode, max_words=config.vocabulary.max_words)
        scaling = gather_scaling(self.cache, config.data)
        plain = ClipDataset(clips, reader or self.cache, self.facts, encode, config.data, training=training,
                            seed=config.seed, scaling=scaling,
                            balanced=config.training.sampling == "balanced")  # fmt: skip
        if self.stored is not None:
            return StoredDataset(plain, self.stored)
        return plain if self.mixtures is None else MixtureDataset(plain, self.mixtures)

    def loader(self, clips: Sequence[Clip], batches: Batches, config: RunConfig, training: bool,
               epoch: int = 0, reader: ClipReader | None = None) -> Iterable[Batch]:  # fmt: skip
        """Batches of the clips at the given indices, in that order, whatever the number of loader workers.

        They are read from the run's cache, or by another reader.
        """
        dataset = self.dataset(clips, config, training, reader)
        dataset.set_epoch(epoch)
        # A generator of its own keeps the loader from drawing on (and so moving) the random state of the training.
        loader = DataLoader(
            dataset, batch_sampler=batches, collate_fn=collate, num_workers=config.data.workers, generator=Generator()
        )
        return loader if config.data.workers == 0 else _with_plain_errors(loader)

    def build_model(self, run: Run) -> FusionModel:
        """A new model of the run; InputError names the run's configuration."""
        try:
            return build_model(run.config.model, self.facts)
        except InputError as error:
            raise InputError(f"{run.folder / 'config.yaml'}: model: {error}") from error


def _with_plain_errors(loader: Iterable[Batch]) -> Iterator[Batch]:
    """The loader's batches; an InputError of a worker process says its sentence, not its traceback."""
    try:
        yield from loader
    except InputError as error:
        raise InputError(str(error).strip().splitlines()[-1].partition("InputError: ")[2]) from None


def batches_of(num_clips: int, batch_size: int) -> list[list[int]]:
    """Indices in order, in batches; the last may be smaller."""
    return [list(range(first, min(first + batch_size, num_clips))) for first in range(0, num_clips, batch_size)]


def open_material(run: Run, accelerator: Accelerator, quiet: bool = False) -> Material:
    """Reads the manifest, fills the cache where something is missing, and gathers or recalls names and words.

    A run that was opened before keeps its own class and word order. InputError as its parts raise it.
    """
    config = run.config
    manifest = read_manifest(Path(config.data.manifest))
    check_groups(manifest.clips, config.data.legacy_split, str(manifest.path))
    check_labels(run, manifest)
    manifest, left_out = decoded_manifest(manifest, config.data)
    shown = accelerator.is_main_process and not quiet
    with accelerator.main_process_first():
        report = build_cache(manifest, config.data, progress=shown)
        vocabulary = _vocabulary(run, manifest)
        if not (run.folder / "labels.json").exists() and not run.weights.exists():
            run.write_json("labels.json", list(_classes(run, manifest)))
    cache, lines = ClipCache(manifest, config.data, report.wanted), report.lines()
    with accelerator.main_process_first():
        _keep_features(run, cache)
    mixtures, stored = None, None
    if config.data.mixture is not None:
        mixtures = Mixtures(manifest, cache, config.data, progress=shown)
        manifest, left_out = mixtures.manifest(), {**left_out, **mixtures.left_out}
    elif config.data.stored_sources:
        with accelerator.main_process_first():
            stored, report = open_sources(cache, config.data, progress=shown)
        manifest, left_out = StoredManifest(manifest.path, manifest.clips, stored), stored.left_out
        lines += report.lines()
    if shown:
        print("\n".join([*lines, *in_words(left_out)]))
    if accelerator.is_main_process and left_out:
        run.write_json("left_out.json", left_out)
    words = vocabulary.words if vocabulary else ()
    facts = gather_facts(cache, run.labels(), words, config.data.num_sources)
    return Material(manifest, cache, facts, vocabulary, mixtures, stored)


def in_whole(manifest: Manifest, splits: Sequence[str], data: DataConfig, windows: WindowsConfig
             ) -> tuple[Manifest, DataConfig]:  # fmt: skip
    """The clips of these splits, and how they are read, where they are evaluated in windows: as long as they are."""
    clips = tuple(clip for split in splits for clip in manifest.split(split))
    return Manifest(manifest.path, clips), replace(data, max_duration_s=windows.max_duration_s)


def _classes(run: Run, manifest: Manifest) -> tuple[str, ...]:
    """The manifest's classes; those of the run whose weights are the first, where the manifest's are among them."""
    names, start = manifest.label_names(), run.config.training.start_from
    known = Run.open(start).labels() if start and (Path(start) / "labels.json").exists() else ()
    return known if set(names) <= set(known) else names


def _keep_features(run: Run, cache: ClipCache) -> None:
    """What `Run.feature_facts` gives: a file that lacks such an input says nothing about it, and neither do weights."""
    ways = run.config.data.inputs
    facts = {
        name: {"width": layout.shape[0], "rate": layout.rate}
        for name, layout in cache.layouts.items()
        if isinstance(ways.get(name), FeaturesInput)
    }
    if facts and not (run.folder / FEATURES).exists():
        run.write_json(FEATURES, facts)


def keep_training_clips(run: Run, material: Material) -> None:
    """Writes down which clips the run trains on, whether they can be read or not."""
    clips = material.manifest.split(run.config.data.train_split)
    run.write_json(TRAINING_CLIPS, {"fingerprint": material.manifest.fingerprint(clips)})


def knows_training_clips(run: Run, material: Material) -> bool:
    """False when the training split holds other clips than those that the run trains, or was trained, on."""
    if not (run.folder / TRAINING_CLIPS).exists() or run.config.data.train_split not in material.manifest.splits:
        return True
    clips = material.manifest.split(run.config.data.train_split)
    return run.read_json(TRAINING_CLIPS)["fingerprint"] == material.manifest.fingerprint(clips)


def check_labels(run: Run, manifest: Manifest) -> None:
    """A head for exactly one class a clip cannot learn from a clip with none or several: InputError names it."""
    for name, head in run.config.model.heads.items():
        for clip in manifest.clips if isinstance(head, LabelsConfig) and head.target == "single" else ():
            if clip.labels is not None and len(clip.labels) != 1:
                where = f"{manifest.path}: clip {clip.id!r}: labels"
                raise InputError(
                    f"{where}: head {name!r} takes exactly one class a clip, this one has {len(clip.labels)}"
                )


def training_captions(run: Run, manifest: Manifest) -> list[str]:
    """Every caption of the split that the run trains on."""
    return [caption for clip in manifest.split(run.config.data.train_split) for caption in clip.captions]


def _vocabulary(run: Run, manifest: Manifest) -> Vocabulary | None:
    if not any(isinstance(head, CaptionConfig) for head in run.config.model.heads.values()):
        return None
    if (run.folder / "vocabulary.json").exists():
        return run.vocabulary()
    if run.weights.exists():
        raise InputError(f"{run.folder / 'vocabulary.json'}: missing, and another vocabulary would not fit the weights")
    sentences = training_captions(run, manifest)
    if not sentences:
        where = f"{manifest.path}: split {run.config.data.train_split!r}"
        raise InputError(f"{where} has no captions, and a caption head needs captions to learn from")
    vocabulary = run.config.vocabulary.build(sentences)
    vocabulary.save(run.folder / "vocabulary.json")
    return vocabulary
