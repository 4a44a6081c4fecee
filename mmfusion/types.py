"""The words that every part of mmfusion shares: clips, streams, batches, outputs, and the protocols between parts.

Shape legend, used in every docstring:

    B  clips in a batch          N  sound samples            K  captions a clip
    T  steps (time positions)    H, W  picture height, width  L  words a caption
    F  features a step           C  event classes            V  words of the vocabulary

Conventions:

* Times are seconds on the clip's own clock: 0 is the clip's `start_s`.
* Step `k` of a stream with rate `r` covers the half-open interval [k/r, (k+1)/r) seconds.
* Masks are True where the data is real. Data under a False mask carries no meaning and must not change any result.
* A modality that a clip does not have is a stream whose mask is False everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Family = Literal["bernoulli", "categorical"]
THRESHOLD = 0.5
"""probability, or relevance, from which a class counts as there, unless a threshold is tuned for it"""


class InputError(Exception):
    """Something that the user gave cannot be used.

    The message is one sentence that names the file and the field; tools print it and exit with status 2.
    """


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """The end of a sentence about a name that is not there: the valid name that is most like it, "" where none is."""
    close = get_close_matches(name, list(valid), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


@dataclass(frozen=True)
class Source:
    """One sounding or visible thing inside a clip.

    Times in seconds on the clip's clock. `media` is the path of the isolated sound, where there is one. `clip` is the
    id of the clip that it was taken from, in a mixture.
    """

    label: str
    start_s: float
    end_s: float
    seen: bool = True
    heard: bool = True
    media: str | None = None
    clip: str | None = None


@dataclass(frozen=True)
class Clip:
    """One line of a manifest: what to read, from where to where, and what is known about it.

    `media` maps an input name ("audio", "video", or any further stream) to a file path; relative paths start at the
    manifest's folder. `labels` is None for an unlabelled clip, [] for a clip in which none of the classes occur.
    `relevances` holds a number in [0, 1] for each class that was rated; a class that is absent there is unknown.
    `group` names what splits must not share (speaker, source video, artist, fold). `genre` is the kind of music, in
    sets that know it: class-aware mixing keeps to it.
    """

    id: str
    media: Mapping[str, str]
    split: str
    group: str
    start_s: float = 0.0
    end_s: float | None = None
    labels: tuple[str, ...] | None = None
    relevances: Mapping[str, float] | None = None
    captions: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    genre: str | None = None


@dataclass(frozen=True)
class Stream:
    """Data on a regular time axis: `data` (B, T, ...), `mask` (B, T) bool, `rate` in steps a second.

    Raw inputs are streams too: a waveform is (B, N), frames are uint8 (B, T, 3, H, W), features and states are
    (B, T, F). Raises ValueError when the parts do not fit together.
    """

    data: Tensor
    mask: Tensor
    rate: float

    def __post_init__(self) -> None:
        import torch

        if self.data.ndim < 2:
            raise ValueError(f"a stream needs at least (batch, time), got shape {tuple(self.data.shape)}")
        if self.mask.dtype != torch.bool:
            raise ValueError(f"a stream's mask must be bool, got {self.mask.dtype}")
        if tuple(self.mask.shape) != tuple(self.data.shape[:2]):
            raise ValueError(f"mask {tuple(self.mask.shape)} does not fit data {tuple(self.data.shape)}")
        if not self.rate > 0:
            raise ValueError(f"a stream's rate must be positive, got {self.rate}")

    @property
    def present(self) -> Tensor:
        """(B,) bool: True for clips that have at least one real step."""
        return self.mask.any(dim=1)

    @property
    def lengths(self) -> Tensor:
        """(B,) int64: one past the last real step, 0 where nothing is real."""
        import torch

        steps = torch.arange(1, self.mask.shape[1] + 1, device=self.mask.device)
        return (self.mask * steps).amax(dim=1) if self.mask.shape[1] else self.mask.sum(dim=1)

    def zeroed(self) -> Tensor:
        """The data with zeros wherever the mask is False."""
        mask = self.mask.reshape(self.mask.shape + (1,) * (self.data.ndim - 2))
        return self.data.masked_fill(~mask, 0)

    def with_data(self, data: Tensor) -> Stream:
        """The same clock and mask with other data."""
        return replace(self, data=data)

    def to(self, device: torch.device | str, **kwargs: Any) -> Stream:
        return Stream(self.data.to(device, **kwargs), self.mask.to(device, **kwargs), self.rate)


class _Movable:
    """Moves every tensor of a dataclass; what is not a tensor stays as it is."""

    def _map(self, move: Any) -> Any:
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return type(self)(**{name: _moved(value, move) for name, value in values.items()})

    def to(self, device: torch.device | str, **kwargs: Any) -> Any:
        return self._map(lambda t: t.to(device, **kwargs))


def _moved(value: Any, move: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _moved(item, move) for key, item in value.items()}
    return move(value) if hasattr(value, "to") else value


@dataclass(frozen=True)
class Targets(_Movable):
    """What the heads are trained toward; each part is None when the batch carries none of it.

    labels      (B, C) float in [0, 1]        label_mask  (B, C) bool, False where the truth is unknown
    activity    (B, S, C) float per second    words       (B, K, L) int64: <bos> w1 ... <eos> <pad> ...
    word_mask   (B, K, L) bool, False on padding and on captions that are not there
    sources     (B, S, N) float32, the signals that the mixture is the sum of
    source_mask (B, S) bool, False where there is no such source or it is silent
    source_classes (B, S) int64, the class of each source by its place among the labels; -1 where it is not known
    """

    labels: Tensor | None = None
    label_mask: Tensor | None = None
    activity: Tensor | None = None
    words: Tensor | None = None
    word_mask: Tensor | None = None
    sources: Tensor | None = None
    source_mask: Tensor | None = None
    source_classes: Tensor | None = None

    def fed_words(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """The batch's N captions as a decoder is fed them; None without any word.

        words (N, L - 1), each before the next one; real (N, L - 1) bool, where that next word is real; clips (N,), the
        row of the batch whose caption it is. A decoder's states under `real`, row by row, predict the words of
        `words[..., 1:][word_mask[..., 1:]]` in their order.
        """
        if self.words is None or self.word_mask is None or not self.word_mask[..., 1:].any():
            return None
        there = self.word_mask[..., 1:].any(dim=-1)
        real = self.word_mask[there]
        return self.words[there].masked_fill(~real, 0)[:, :-1], real[:, 1:], there.nonzero()[:, 0]


@dataclass(frozen=True)
class Batch(_Movable):
    """What `collate` makes and `FusionModel` reads: clip ids, raw input streams by input name, targets."""

    ids: tuple[str, ...]
    inputs: Mapping[str, Stream]
    targets: Targets = field(default_factory=Targets)


@dataclass(frozen=True)
class Facts:
    """What the data tells the model: class names, words (index 0 is <pad>), and the width of feature inputs.

    `num_sources` is how many sources a mixture has, 0 where clips are no mixtures.
    """

    labels: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    widths: Mapping[str, int] = field(default_factory=dict)
    num_sources: int = 0


@dataclass(frozen=True)
class Output:
    """What a head says: `logits`, and what they are logits of.

    bernoulli: each entry an independent sigmoid; categorical: a softmax over the last axis. Labels are (B, C). Words
    are (R, V): one row for each of the batch's R real next words, `words[..., 1:][word_mask[..., 1:]]` in that order.
    `steps` holds per-step logits (B, T, C) on the stream's clock when the head was asked for them.
    """

    logits: Tensor
    family: Family
    steps: Stream | None = None

    def log_probs(self) -> Tensor:
        """log p, same shape as `logits`."""
        from torch.nn.functional import log_softmax, logsigmoid

        return log_softmax(self.logits.float(), -1) if self.family == "categorical" else logsigmoid(self.logits.float())


@dataclass(frozen=True)
class Separated:
    """What a separation head says: `sources` (B, S, N) float32, zero where `mask` (B, N) says that no sound was."""

    sources: Tensor
    mask: Tensor


Decision = Output | Separated


@runtime_checkable
class Encoder(Protocol):
    """Raw input stream -> stream of `width` features a step."""

    width: int

    def __call__(self, raw: Stream) -> Stream: ...


@runtime_checkable
class Head(Protocol):
    """One stream -> a decision, and its loss (a scalar in float32, mean over what is known in the batch)."""

    def __call__(self, stream: Stream, targets: Targets) -> Output: ...

    def loss(self, output: Output, targets: Targets) -> Tensor: ...


@runtime_checkable
class Separator(Protocol):
    """The fused stream and a mixture as it came in (the input called `reads`) -> the signals that it is the sum of.

    `told_loss` gives the loss as a Head's `loss` does, and figures to watch beside it (float32 scalars by name).
    `as_sources` gives what is compared with the true sources when the output is scored.
    """

    reads: str

    def __call__(self, stream: Stream, mixture: Stream) -> Separated: ...

    def told_loss(self, output: Separated, targets: Targets) -> tuple[Tensor, dict[str, Tensor]]: ...

    def as_sources(self, output: Separated, targets: Targets) -> Separated: ...


@runtime_checkable
class Stepper(Protocol):
    """Something that says one word at a time: a decoder, a language model, or a mix of several.

    A state is any nest of dicts and tuples of tensors whose first axis is the batch, so that a search may repeat,
    reorder and drop rows without knowing what is inside.
    """

    def start(self, given: Any) -> Any:
        """The state before the first word, for each row of what is given (a Stream, or a dict of Streams)."""
        ...

    def step(self, words: Tensor, state: Any) -> tuple[Tensor, Any]:
        """words (B,) int64, the last word of each row -> log p of the next word (B, V) float32, and the new state."""
        ...
