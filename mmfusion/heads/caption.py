"""Captions: a reader that takes in a stream of steps, and an LSTM that then speaks a sentence.

S2VT: Venugopalan, Rohrbach, Donahue, Mooney, Darrell, Saenko, "Sequence to Sequence - Video to Text" (ICCV 2015),
section 3; the readers are in caption_readers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax
from torch.nn.utils.rnn import pack_padded_sequence

from mmfusion.config import configclass
from mmfusion.heads.caption_readers import (
    LayerState,
    MeanReader,
    S2vtReader,
    in_float32,
    lstm_cell,
    reading_ends,
    run_lstm,
)
from mmfusion.types import Output, Stream, Targets


@configclass
class CaptionConfig:
    """Settings of a `CaptionHead`."""

    kind: Literal["caption"] = "caption"
    reader: Literal["s2vt", "mean"] = "s2vt"
    """s2vt: an LSTM reads the steps and goes on while the sentence is spoken; mean: every word hears their mean."""
    projection: Annotated[int, Field(gt=0)] | None = None
    """Features a step after a linear map before the reader; None reads the steps as they are."""
    embedding: Annotated[int, Field(gt=0)] = 256
    """Features of a word."""
    hidden: Annotated[int, Field(gt=0)] = 256
    """Units of each LSTM."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping a feature of the steps, of the words, and of the state before the softmax."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each target word that is spread evenly over the vocabulary."""
    scheduled_sampling: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability, in training, of feeding a word that the model guessed instead of the true previous word."""
    loss_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of this head in the model's loss; applied by the model, not by `loss`."""


@dataclass(frozen=True)
class Spoken:
    """The N captions of a batch, as they are fed: `words` (N, L - 1) previous words, `real` (N, L - 1) bool where a
    next word is real, `clips` (N,) whose caption each is, and the state (B rows) that reading the clips left."""

    words: Tensor
    real: Tensor
    clips: Tensor
    state: dict[str, Any]


class CaptionHead(nn.Module):
    """A caption decoder as a head (teacher forcing) and as a `Stepper` (one word at a time).

    `reader` takes in the steps. The LSTM `speaker` reads [what the reader gives; word]: with S2VT also while the clip
    is read, zeros for the word, then <bos>, w1, w2, ... Each clip turns from reading to speaking after its own last
    real step; a clip without a real step speaks from a zero state.

    The columns of the speaker's input are ordered [reader (reader.width); word (embedding)]. Word 0 is <pad>.
    """

    def __init__(self, config: CaptionConfig, width: int, num_words: int) -> None:
        super().__init__()
        self.config = config
        self.loss_weight = config.loss_weight
        size = config.projection or width
        self.project = nn.Identity() if config.projection is None else nn.Linear(width, size)
        self.reader = S2vtReader(size, config.hidden) if config.reader == "s2vt" else MeanReader(size)
        self.embedding = nn.Embedding(num_words, config.embedding, padding_idx=0)
        self.speaker = nn.LSTM(self.reader.width + config.embedding, config.hidden, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden, num_words)

    def forward(self, stream: Stream, targets: Targets) -> Output:
        """Logits (R, V) of the R real next words of the batch, in the row-major order of `word_mask[..., 1:]`.

        So `logits[i]` predicts `words[..., 1:][word_mask[..., 1:]][i]`, given the true words before it. No row for
        padding, none for captions that are not there; (0, V) when the targets hold no words.
        """
        return Output(self.output(self.dropout(self.states(stream, targets))), "categorical")

    def loss(self, output: Output, targets: Targets) -> Tensor:
        """Cross-entropy of the next word, a float32 scalar: the mean over the batch's real words, zero without any."""
        if targets.words is None or len(output.logits) == 0:
            return 0.0 * output.logits.float().sum()
        assert targets.word_mask is not None
        words = targets.words[..., 1:][targets.word_mask[..., 1:]]
        return cross_entropy(output.logits.float(), words, label_smoothing=self.config.label_smoothing)

    def states(self, stream: Stream, targets: Targets) -> Tensor:
        """The speaker's states (R, hidden) before the softmax, float32, rows ordered as in `forward`."""
        spoken = self.listen(stream, targets)
        if spoken is None:
            return stream.data.new_zeros((0, self.config.hidden), dtype=torch.float32)
        return self.states_of(spoken)

    def listen(self, stream: Stream, targets: Targets, logits_of: Callable[[Spoken], Tensor] | None = None
               ) -> Spoken | None:  # fmt: skip
        """Reads each clip once, for all of its captions, and lays out the words to feed; None without any word.

        `logits_of` gives the logits (R, V) of what is spoken where this head's own softmax is not the whole model's;
        scheduled sampling draws from them.
        """
        fed = targets.fed_words()
        if fed is None:
            return None
        spoken = Spoken(*fed, self.start(stream))
        if self.training and self.config.scheduled_sampling > 0:
            return self._guessed_in_part(spoken, logits_of or (lambda each: self.output(self.states_of(each))))
        return spoken

    def states_of(self, spoken: Spoken) -> Tensor:
        """The speaker's states (R, hidden) at the real words."""
        num_words = spoken.words.shape[1]
        flat = torch.arange(spoken.words.numel(), device=spoken.words.device).view_as(spoken.words)
        # Words are laid out as the LSTM wants them from the start: nothing is ever as large as the padded batch.
        order = pack_padded_sequence(flat, self._lengths(spoken), batch_first=True, enforce_sorted=False)
        captions, places = order.data // num_words, order.data % num_words
        state = tuple(part[spoken.clips].unsqueeze(0) for part in spoken.state["speaker"])
        with in_float32(state[0]):
            heard, _ = self.reader.say(spoken.state["reader"], num_words)
            words = self.dropout(self.embedding(spoken.words.flatten()[order.data]))
            inputs = torch.cat([heard[spoken.clips[captions], places], words], dim=-1)
            states = self.speaker(order._replace(data=inputs), state)[0].data
        back = order.data.argsort()
        return states[back[spoken.real.flatten()[order.data[back]]]]

    def start(self, given: Stream) -> dict[str, Any]:
        """The state (B rows) after reading each clip up to its last real step, before the first word."""
        steps = self.project(given.zeroed().float())
        with in_float32(given.data):
            stream = given.with_data(steps.float())
            stream = stream.with_data(self.dropout(stream.zeroed()))
            heard, read = self.reader.read(stream)
            if heard is None:
                zeros = stream.data.new_zeros(len(stream.data), self.config.hidden)
                spoken = (zeros, zeros)
            else:
                # No word is said yet: the word's features, which are the speaker's last, are zeros.
                _, spoken = run_lstm(self.speaker, heard, reading_ends(stream))
        nothing = (given.lengths == 0)[:, None]
        return {
            name: tuple(part.masked_fill(nothing, 0) for part in parts)
            for name, parts in (("reader", read), ("speaker", spoken))
        }

    def step(self, words: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """words (B,) int64 -> log p of the next word (B, V) float32, and the new state."""
        hidden, state = self.advance(words, state)
        return log_softmax(self.output(self.dropout(hidden)).float(), dim=-1), state

    def advance(self, words: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """The same without the softmax: the speaker's state (B, hidden) and the new state."""
        with in_float32(self.embedding.weight):
            heard, read = self.reader.say(state["reader"], 1)
            inputs = torch.cat([heard[:, 0], self.dropout(self.embedding(words))], dim=-1)
            spoken: LayerState = lstm_cell(self.speaker, inputs, state["speaker"])
        return spoken[0], {"reader": read, "speaker": spoken}

    @staticmethod
    def _lengths(spoken: Spoken) -> Tensor:
        """(N,) words that are fed of each caption, on the CPU."""
        places = torch.arange(1, spoken.real.shape[1] + 1, device=spoken.real.device)
        return (spoken.real * places).amax(dim=1).cpu()

    def _guessed_in_part(self, spoken: Spoken, logits_of: Callable[[Spoken], Tensor]) -> Spoken:
        """Some previous words replaced by words drawn from the model's own teacher-forced prediction of them.

        Scheduled sampling (Bengio et al., NeurIPS 2015) in one parallel pass instead of a loop over words: Duckworth,
        Neelakantan, Goodrich, Kaiser, Bengio, "Parallel scheduled sampling" (2019). <bos> is never replaced.
        """
        words = spoken.words
        with torch.no_grad():
            guesses = torch.zeros_like(words)
            guesses[spoken.real] = torch.distributions.Categorical(logits=logits_of(spoken).float()).sample()
            chosen = torch.rand(words.shape, device=words.device) < self.config.scheduled_sampling
        guesses = torch.cat([words[:, :1], guesses[:, :-1]], dim=1)
        return replace(spoken, words=torch.where(chosen, guesses, words))
