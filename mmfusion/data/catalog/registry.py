"""The data sets that `tools/prepare.py` knows: name -> reader, imported when it is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfusion.types import InputError

if TYPE_CHECKING:
    from mmfusion.data.catalog.prepared import Prepared

# name -> (module with `prepare(root, out, config)`, its settings class, what it is)
READERS = {
    "audioset": ("mmfusion.data.catalog.audioset", "AudiosetConfig", "AudioSet segments, clips or VGGish embeddings"),
    "audiocaps": ("mmfusion.data.catalog.audiocaps", "AudiocapsConfig", "AudioCaps captions of AudioSet clips"),
    "avmnist": ("mmfusion.data.catalog.avmnist", "AvmnistConfig", "spoken digits in noise with degraded MNIST images"),
    "clotho": ("mmfusion.data.catalog.clotho", "ClothoConfig", "Clotho captions of Freesound recordings"),
    "drone": ("mmfusion.data.catalog.drone", "DroneConfig", "class-matched videos and sounds of things that fly"),
    "esc50": ("mmfusion.data.catalog.esc50", "Esc50Config", "ESC-50 and ESC-10 environmental sounds, five folds"),
    "folder": ("mmfusion.data.catalog.folder", "FolderConfig", "your own files in a folder a class"),
    "fsdkaggle2018": (
        "mmfusion.data.catalog.fsdkaggle2018",
        "Fsdkaggle2018Config",
        "FSDKaggle2018, 41 classes",
    ),
    "irmas": ("mmfusion.data.catalog.irmas", "IrmasConfig", "IRMAS predominant instruments"),
    "mmmo": ("mmfusion.data.catalog.mmmo", "MmmoConfig", "ICT-MMMO sentiment, features of sound and face"),
    "mosi": ("mmfusion.data.catalog.mosi", "MosiConfig", "CMU-MOSI sentiment, features of sound, face and words"),
    "msrvtt": ("mmfusion.data.catalog.msrvtt", "MsrvttConfig", "MSR-VTT captions of video clips"),
    "msvd": ("mmfusion.data.catalog.msvd", "MsvdConfig", "MSVD captions with features and silent clips"),
    "nsynth": ("mmfusion.data.catalog.nsynth", "NsynthConfig", "NSynth notes of instruments"),
    "openmic": ("mmfusion.data.catalog.openmic", "OpenmicConfig", "OpenMIC-2018 instruments, partly rated"),
    "synthetic": ("mmfusion.data.catalog.made", "SyntheticConfig", "the set that the project makes itself (no --root)"),
    "urbansound8k": ("mmfusion.data.catalog.urbansound8k", "Urbansound8kConfig", "UrbanSound8K, ten folds"),
}
# Readers that render media and take the number of processes; the files do not depend on it.
_PARALLEL = {"avmnist", "synthetic"}


def settings(name: str, pairs: Sequence[str]) -> Any:
    """The settings of a reader with "key=value" pairs (YAML values) in place of its defaults. Raises InputError."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from mmfusion.config import validate

    if name not in READERS:
        raise InputError(f"{name}: no such data set (there are {', '.join(READERS)})")
    for pair in pairs:
        if not pair.partition("=")[0] or "=" not in pair:
            raise InputError(f"{name}: setting {pair!r} is not of the form key=value")
    try:
        tree = OmegaConf.to_container(OmegaConf.from_dotlist(list(pairs)), resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        raise InputError(f"{name}: settings cannot be read: {str(error).splitlines()[0]}") from error
    module, config, _ = READERS[name]
    return validate(getattr(import_module(module), config), tree, name)


def prepare_set(name: str, root: Path | None, out: Path, config: Any, workers: int = 1) -> Prepared:
    """Reads the set under `root` and writes its manifests, rendered media and `prepared.json` under `out`.

    `config` comes from `settings(name, ...)`. Raises InputError naming the file that is missing or cannot be used.
    """
    if root is None and name != "synthetic":
        raise InputError(f"{name}: --root must name the folder in which the set lies")
    if root is not None and not root.is_dir():
        raise InputError(f"{root}: no such folder")
    module = import_module(READERS[name][0])
    out.mkdir(parents=True, exist_ok=True)
    extra = {"workers": workers} if name in _PARALLEL else {}
    prepared = module.prepare(root, out, config, **extra)
    prepared.save(out / "prepared.json", name, config)
    return prepared


def check_prepared(name: str, out: Path, config: Any) -> None:
    """InputError when `out` holds another set, or was made with other settings; a folder that does not say is taken."""
    from mmfusion.config import to_tree

    path = out / "prepared.json"
    if not path.exists():
        return
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        before = {"name": made["name"], **made["settings"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: does not say how the set was made: {error}") from error
    asked = json.loads(json.dumps({"name": name, **to_tree(config)}))
    for key, value in asked.items():
        if before.get(key, value) != value:
            change = f"{key} was {before[key]!r} and is {value!r} now"
            raise InputError(f"{out}: was made with other settings ({change}); delete the folder or name another one")
