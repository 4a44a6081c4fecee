"""Labels and a caption for any media file, with a finished run; long files in windows, captions checked by the sound.

The unit is a window of a file, a `Clip` with `start_s` and `end_s`, which is read, predicted and let go before the
next one. What checks captions comes in as a `Checker`; `report/grounding.py` has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from mmfusion.activity import events_in
from mmfusion.data.features import read_features
from mmfusion.data.media import MediaInfo, probe, reach_s
from mmfusion.data.raw import Raw
from mmfusion.data.windows import Aggregate, spans
from mmfusion.describe import Row, Said, describe, join_windows
from mmfusion.language.grounding import Grounded
from mmfusion.predictor import Predictor
from mmfusion.training.run import Run, RunConfig
from mmfusion.types import THRESHOLD, Clip, InputError

NO_SOUND = "no sound to check against"
DIFFERS_S = 0.25
"""between a header and what follows it: less is the filling of a last packet, or a clock that begins elsewhere"""
_MAX_EMPTY = 100  # windows without anything readable after which a file is taken to end


class Checker(Protocol):
    """Compares captions with what is heard."""

    notes: list[str]
    """how it was done, for the reader of the verdicts"""

    def hear(self, clip: Clip, inputs: Mapping[str, Raw], path: Path | None = None
             ) -> tuple[dict[str, float] | None, list[str]]:  # fmt: skip
        """{label: probability} from the sound of a clip, None without sound; and what of it could not be read.

        `inputs` are what the predictor has read of the clip, `path` is its file where no manifest names one.
        """
        ...

    def check(self, caption: str, chances: Mapping[str, float] | None) -> list[Grounded]: ...

    def choose(self, captions: Sequence[tuple[str, float]], chances: Mapping[str, float] | None) -> str:
        """One of a clip's n best captions, which come with their scores, the best first."""
        ...


@dataclass(frozen=True)
class Asked:
    """What is wanted beside labels and a caption of a file's beginning."""

    window_s: float | None = None
    """length of the windows that the whole file is cut into; None reads the first `max_duration_s` of the run only"""
    hop_s: float | None = None
    """from the beginning of one window to that of the next; None: no overlap"""
    aggregate: Aggregate = "max"
    """how the windows' probabilities become the file's (see `data.windows.aggregate`)"""
    features: Mapping[str, Path] = field(default_factory=dict)
    """input name -> feature file, for inputs that no media file holds"""
    checker: Checker | None = None
    rerank: bool = False
    """let the checker choose among the n best captions"""

    def fits_thresholds(self, config: RunConfig) -> bool:
        """Whether probabilities are made as those were by which the run's thresholds were tuned."""
        own = Asked.as_evaluated(config)
        return (self.window_s, self.hop_s or self.window_s, self.aggregate) == (
            own.window_s, own.hop_s or own.window_s, own.aggregate
        )  # fmt: skip

    @classmethod
    def as_evaluated(cls, config: RunConfig) -> Asked:
        """The windows in which the run was evaluated; the file's beginning where it has none."""
        windows = config.windows
        return cls() if windows is None else cls(windows.length_s, windows.hop_s, windows.aggregate)


def predict_files(run: Run, paths: Iterable[str | Path], asked: Asked | None = None) -> Iterator[dict[str, Any]]:
    """One dict a file, in order; without files, one for the feature files that are asked for.

    `path`, `has_audio`, `has_video`, `labels` {class: probability}, `detected` (the classes that are decided to be
    there, by the `thresholds` {class: probability} where they are tuned), `caption`, `media` (what was found in the
    file), `warnings` (a part of the file that could not be read while another could, a header that is wrong about its
    length); or `path` and `error` with one reason. From a head with `per_second`: `activity` {class: [probability a
    second]} and `events` [{start_s, end_s, label}]. In windows: `windows`, each with `start_s`, `end_s`, `labels`,
    `caption`; then `labels` are theirs aggregated, and `caption` is theirs in turn. With a checker: `grounding`,
    {"words": [{word, label, verdict, probability}], "notes": [sentence]}, of the file and of each window.
    Unless something else is asked, files are seen as the run's evaluation saw its clips.
    Raises InputError when the run itself cannot be used.
    """
    asked, paths = asked or Asked.as_evaluated(run.config), list(paths)
    predictor = Predictor(run, asked.features)
    if asked.features and len(paths) > 1:
        raise InputError("--features: the features of one file go with one file")
    for path in paths or [None] * bool(asked.features):
        name = str(path if path is not None else next(iter(asked.features.values())))
        try:
            yield predict_file(predictor, None if path is None else Path(path), asked)
        except InputError as error:
            yield {"path": name, "error": " ".join(str(error).split())}
        except Exception as error:  # one odd file must not cost the others their predictions
            yield {"path": name, "error": f"{name}: cannot be predicted: {type(error).__name__}: {error}"}


def predict_file(predictor: Predictor, path: Path | None, asked: Asked) -> dict[str, Any]:
    """See `predict_files`. Raises InputError with one reason when nothing in the file can be used."""
    info = probe(path) if path is not None else None
    where = str(path if path is not None else next(iter(asked.features.values())))
    media = predictor.media_of(path, asked.features)
    whole = Clip(where, media, "", "", 0.0, predictor.config.data.max_duration_s)
    length_s, warnings = _length_s(info, asked, whole.end_s)
    parts: list[tuple[Clip, Said, Row]] = []
    reason = f"{where}: holds no {' or '.join(predictor.config.data.inputs)} to predict from"
    num_empty = 0
    for clip in _cut(whole, info, length_s, asked):
        said, extra, flaws = _part(predictor, clip, asked, path)
        if said is not None:
            parts.append((clip, said, extra))
        elif flaws and not parts:
            reason = flaws[0].partition(": ")[2]
        warnings += [flaw for flaw in flaws if flaw not in warnings]
        num_empty = 0 if said is not None else num_empty + 1
        if num_empty >= _MAX_EMPTY or (num_empty and length_s is None):
            break
    if not parts:
        raise InputError(reason)
    found: dict[str, Any] = {"path": where}
    found |= {"has_audio": info is not None and info.has_audio, "has_video": info is not None and info.has_video}
    said = join_windows([said for _, said, _ in parts], asked.aggregate)
    end_s = min(parts[-1][0].end_s or 0.0, length_s or math.inf)
    fitting = asked.fits_thresholds(predictor.config)
    if not fitting and predictor.label_head in predictor.thresholds:
        warnings.append(f"{predictor.label_head}: thresholds were tuned on other windows; 0.5 decides what is detected")
    if predictor.silent_heads:
        warnings.append(f"{', '.join(predictor.silent_heads)}: not said; one label head and one caption head answer")
    found |= _labels(predictor, said, end_s, fitting) | _captions([extra for *_, extra in parts], asked)
    if asked.window_s is not None:
        found["windows"] = [_window(predictor, *part) for part in parts]
    found["media"] = {key: value for key, value in asdict(info).items() if key != "path"} if info else {}
    return found | ({"warnings": warnings} if warnings else {})


def _part(predictor: Predictor, clip: Clip, asked: Asked, path: Path | None) -> tuple[Said | None, Row, list[str]]:
    """What is said of one window, None when nothing in it can be read; its caption; and what could not be read."""
    inputs, flaws = predictor.read(clip)
    if not inputs:
        return None, {}, flaws
    batch = predictor.batch(inputs)
    checker, speaks = asked.checker, predictor.caption_head
    chances, unheard = checker.hear(clip, inputs, path) if checker else (None, [])
    with torch.inference_mode():
        fused = predictor.model.fusion(predictor.model.encode(batch))
        outputs = predictor.model.decide(fused, batch)
        choosing = checker is not None and asked.rerank
        how = None if choosing else predictor.config.search
        (said,) = describe(predictor.model, fused, outputs, batch, predictor.vocabulary, how, [clip.start_s])
        caption = said.captions.get(speaks) if speaks else None
        if checker and choosing and speaks:
            caption = checker.choose(predictor.captions(fused), chances)
    if caption is None:
        return said, {}, [*flaws, *unheard]
    found: Row = {"caption": caption}
    if checker:
        words = [asdict(word) for word in checker.check(caption, chances)]
        found["grounding"] = {"words": words, "notes": [NO_SOUND] if chances is None else []}
    return said, found, [*flaws, *unheard]


def _window(predictor: Predictor, clip: Clip, said: Said, extra: Row) -> Row:
    row, head = said.row(predictor.facts.labels), predictor.label_head
    return {"start_s": clip.start_s, "end_s": clip.end_s, **({"labels": row[head]} if head else {}), **extra}


def _labels(predictor: Predictor, said: Said, end_s: float, fitting: bool) -> Row:
    """What a label head says of a whole file that ends at `end_s` seconds, and what is decided by it.

    Tuned thresholds decide what is detected where they are `fitting`, else 0.5 does. Seconds have no windows: what was
    tuned for them always decides about events.
    """
    head, labels = predictor.label_head, predictor.facts.labels
    if head is None:
        return {}
    row, tuned = said.row(labels), predictor.thresholds
    found: Row = {"labels": row[head], "detected": predictor.decided(row[head], fitting)}
    found |= {"thresholds": tuned[head]} if head in tuned and fitting else {}
    if "activity" in row:
        levels = [tuned.get("activity", {}).get(name, THRESHOLD) for name in labels]
        events = events_in(row["activity"], labels, levels, predictor.config.events)
        timed = [(event.onset_s, min(event.offset_s, end_s), event.label) for event in events if event.onset_s < end_s]
        found["activity"] = row["activity"]
        found["events"] = [{"start_s": start, "end_s": end, "label": label} for start, end, label in sorted(timed)]
    return found


def _cut(whole: Clip, info: MediaInfo | None, length_s: float | None, asked: Asked) -> Iterator[Clip]:
    """The windows that are asked for; a picture, and a file of which no windows are asked for, is one clip."""
    if asked.window_s is None or (info is not None and info.is_still):
        yield whole
        return
    for start_s, end_s in spans(length_s, asked.window_s, asked.hop_s):
        yield replace(whole, start_s=start_s, end_s=end_s)


def _length_s(info: MediaInfo | None, asked: Asked, read_s: float | None) -> tuple[float | None, list[str]]:
    """Seconds of the file, or of the features where there is none; None where nobody knows. And what is odd in them.

    A header may say anything: its packets are believed. Where no windows are asked for, no more than `read_s` is read,
    and it is enough to know that the file goes there.
    """
    if info is None:
        return max(len(data) / rate for data, _, rate in map(read_features, asked.features.values())), []
    until_s = read_s if asked.window_s is None else None
    stated_s, end_s = info.duration_s, reach_s(info.path, until_s)
    if stated_s is None or end_s is None:
        return end_s or stated_s, []
    begin_s = max(0.0, min((at for at in (info.audio_start_s, info.video_start_s) if at is not None), default=0.0))
    cut_short = until_s is not None and end_s >= until_s
    if end_s > stated_s + begin_s + DIFFERS_S or (end_s < stated_s - DIFFERS_S and not cut_short):
        least = "at least " if cut_short else ""
        return end_s, [f"{info.path}: its header says {stated_s:.1f} s, and it goes to {least}{end_s:.1f} s"]
    return max(stated_s, end_s), []


def _captions(parts: Sequence[Row], asked: Asked) -> Row:
    """What is said of the whole file in words: the captions in turn, every word that was checked."""
    found: Row = {}
    if "caption" in parts[0]:
        said = [part["caption"] for part in parts]
        found["caption"] = ". ".join(one for one, before in zip(said, [None, *said], strict=False) if one != before)
    if "grounding" in parts[0]:
        notes = dict.fromkeys(note for part in parts for note in part["grounding"]["notes"])
        if any(not part["grounding"]["notes"] for part in parts):
            notes = {f"{note} in some windows": None for note in notes}
        words = [word for part in parts for word in part["grounding"]["words"]]
        found["grounding"] = {"words": words, "notes": [*notes, *(asked.checker.notes if asked.checker else [])]}
    return found


def as_text(found: dict[str, Any], top: int, events: bool = False) -> str:
    """A prediction for a person to read: the file, its most probable labels, the caption, and what went wrong.

    Of windows each is shown, and then the labels that they are joined to; `events` stand in the place of the windows.
    """
    if "error" in found:
        return f"{found['path']}: error: {found['error'].removeprefix(found['path'] + ': ')}"
    lines = [str(found["path"])]
    for part in [found] if events else found.get("windows", [found]):
        if "start_s" in part:
            lines.append(f"  {part['start_s']:.1f}-{part['end_s']:.1f} s")
        lines += _best(part, top)
        lines += [f"  caption  {part['caption']}"] if "caption" in part else []
        words = part.get("grounding", {}).get("words", [])
        lines += ["  ground   " + "  ".join(map(_as_verdict, words))] if words else []
    if "windows" in found and not events:
        lines += [f"  joined{line.removeprefix('  labels')}" for line in _best(found, top)]
    lines += [f"  detected {', '.join(found['detected']) or 'nothing'}"] if "thresholds" in found else []
    for event in found.get("events", []) if events else []:
        lines.append(f"  {event['start_s']:7.1f} {event['end_s']:7.1f} s  {event['label']}")
    lines += [f"  note     {note}" for note in found.get("grounding", {}).get("notes", [])]
    return "\n".join([*lines, *(f"  warning  {warning}" for warning in found.get("warnings", []))])


def _best(found: Mapping[str, Any], top: int) -> list[str]:
    """A line with the most probable labels, where there are any."""
    best = sorted(found.get("labels", {}).items(), key=lambda item: -item[1])[:top]
    return ["  labels   " + "  ".join(f"{name} {chance:.2f}" for name, chance in best)] if best else []


def _as_verdict(word: Mapping[str, Any]) -> str:
    named = "" if word["label"] in (None, word["word"]) else f" ({word['label']})"
    chance = "" if word["probability"] is None else f" {word['probability']:.2f}"
    return f"{word['word']}{named} {word['verdict']}{chance}"
