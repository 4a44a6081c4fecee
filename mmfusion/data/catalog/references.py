"""Reference sentences of a set's clips in whatever form they lie: for scoring, which needs no media.

    .jsonl  a manifest; the clips of one split that have captions
    .json   {clip: [caption, ...]}, or MSR-VTT's {clip: {number: caption}}
    .csv    AudioCaps (youtube_id, start_time, caption) or Clotho (file_name, caption_1 .. caption_5), by its columns
    .txt    MSVD's lines `<clip><TAB><caption>`

The last three keep every caption as it stands, repeats included; a manifest of MSVD holds each training caption once.
"""

from __future__ import annotations

from pathlib import Path

from mmfusion.data.catalog import audiocaps, clotho, msrvtt
from mmfusion.data.catalog.captioned import Captions
from mmfusion.data.catalog.tables import read_object, read_table, read_text
from mmfusion.data.manifest import read_manifest
from mmfusion.types import InputError


def read_references(path: str | Path, split: str = "test") -> Captions:
    """Clip -> its captions, one or more. `split` chooses the clips of a manifest; other forms hold one split each.

    Raises InputError naming the file and the clip, line or column at fault.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        found = {clip.id: list(clip.captions) for clip in read_manifest(path).split(split) if clip.captions}
        if not found:
            raise InputError(f"{path}: captions: no clip of {split!r} has any")
        return found
    if path.suffix == ".csv":
        columns = read_table(path, ())[0]
        sets = [reader for reader in (audiocaps, clotho) if set(reader.COLUMNS) <= set(columns)]
        if not sets:
            raise InputError(
                f"{path}: its columns ({', '.join(map(str, columns))}) are neither AudioCaps' nor Clotho's"
            )
        return sets[0].read_captions(path)
    return _read_lines(path) if path.suffix == ".txt" else _read_json(path)


def _read_json(path: Path) -> Captions:
    tree = read_object(path)
    if all(isinstance(captions, dict) for captions in tree.values()):
        return msrvtt.read_captions(path)
    for clip, captions in tree.items():
        if not (isinstance(captions, list) and captions and all(isinstance(text, str) for text in captions)):
            raise InputError(f"{path}: clip {clip}: must be a list of one or more captions")
    return tree


def _read_lines(path: Path) -> Captions:
    found: Captions = {}
    for number, line in enumerate(read_text(path).removesuffix("\n").split("\n"), start=1):
        clip, tab, caption = line.partition("\t")
        if not tab or not caption.strip():
            raise InputError(f"{path}:{number}: must read <clip><TAB><caption>, got {line!r}")
        found.setdefault(clip, []).append(caption.strip())
    return found
