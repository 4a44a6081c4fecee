"""Captions: S2VT, two stacked LSTMs that read a stream of steps and then speak a sentence.

Venugopalan, Rohrbach, Donahue, Mooney, Darrell, Saenko, "Sequence to Sequence - Video to Text" (ICCV 2015), section 3.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmfusion.config import configclass
from mmfusion.types import Output, Stream, Targets

LayerState = tuple[Tensor, Tensor]
"""Hidden and cell state of one LSTM, (B, hidden) each."""


@configclass
class CaptionConfig:
    """Settings of a `CaptionHead`."""

    kind: Literal["caption"] = "caption"
    projection: Annotated[int, Field(gt=0)] | None = None
    """Features a step after a linear map before the first LSTM; None reads the steps as they are."""
    embedding: Annotated[int, Field(gt=0)] = 256
    """Features of a word."""
    hidden: Annotated[int, Field(gt=0)] = 256
    """Units of each of the two LSTMs."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping a feature of the steps, of the words, and of the state before the softmax."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each target word that is spread evenly over the vocabulary."""
    scheduled_sampling: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability, in training, of feeding a word that the model guessed instead of the true previous word."""
    loss_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of this head in the model's loss; applied by the model, not by `loss`."""


class CaptionHead(nn.Module):
    """S2VT as a head (teacher forcing) and as a `Stepper` (one word at a time).

    The first LSTM, `reader`, reads the steps and then, while the sentence is spoken, zeros. The second, `speaker`,
    reads [state of the first; word]: zeros for the word while the steps are read, then <bos>, w1, w2, ... Each clip
    turns from reading to speaking after its own last real step; a clip without a real step speaks from a zero state.

    The columns of the speaker's input are ordered [reader (hidden); word (embedding)]. Word 0 is <pad>.
    """

    def __init__(self, config: CaptionConfig, width: int, num_words: int) -> None:
        super().__init__()
        self.config = config
        self.loss_weight = config.loss_weight
        size = config.projection or width
        self.project = nn.Identity() if config.projection is None else nn.Linear(width, size)
        self.reader = nn.LSTM(size, config.hidden, batch_first=True)
        self.embedding = nn.Embedding(num_words, config.embedding, padding_idx=0)
        self.speaker = nn.LSTM(config.hidden + config.embedding, config.hidden, batch_first=True)
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
        """The speaker's states (R, hidden) before the softmax, float32, rows ordered as in `forward`.

        Each clip is read once; its K captions share the state that this leaves behind.
        """
        if targets.words is None or targets.word_mask is None or not targets.word_mask[..., 1:].any():
            return stream.data.new_zeros((0, self.config.hidden), dtype=torch.float32)
        there = targets.word_mask[..., 1:].any(dim=-1)
        clips = there.nonzero()[:, 0]
        real = targets.word_mask[there]
        words = targets.words[there].masked_fill(~real, 0)[:, :-1]
        state = self.start(stream)
        if self.training and self.config.scheduled_sampling > 0:
            words = self._guessed_in_part(state, clips, words, real[:, 1:])
        return self._speak(state, clips, words, real[:, 1:])[real[:, 1:]]

    def start(self, given: Stream) -> dict[str, LayerState]:
        """The state (B rows) after reading each clip up to its last real step, before the first word."""
        lengths = given.lengths
        steps = self.project(given.zeroed().float())
        with _float32(given.data):
            steps = self.dropout(given.with_data(steps.float()).zeroed())
            # A length is at least one; what a clip without steps then reads is thrown away below.
            ends = lengths.clamp(min=1).cpu()
            heard, read = _run(self.reader, steps, ends)
            silence = heard.new_zeros((*heard.shape[:2], self.config.embedding))
            _, spoken = _run(self.speaker, torch.cat([heard, silence], dim=-1), ends)
        nothing = (lengths == 0)[:, None]
        return {
            name: (hidden[0].masked_fill(nothing, 0), cell[0].masked_fill(nothing, 0))
            for name, (hidden, cell) in (("reader", read), ("speaker", spoken))
        }

    def step(self, words: Tensor, state: dict[str, LayerState]) -> tuple[Tensor, dict[str, LayerState]]:
        """words (B,) int64 -> log p of the next word (B, V) float32, and the new state."""
        hidden, state = self.advance(words, state)
        return log_softmax(self.output(self.dropout(hidden)).float(), dim=-1), state

    def advance(self, words: Tensor, state: dict[str, LayerState]) -> tuple[Tensor, dict[str, LayerState]]:
        """The same without the softmax: the speaker's state (B, hidden) and the new state of both LSTMs."""
        with _float32(self.embedding.weight):
            zeros = self.embedding.weight.new_zeros(len(words), self.reader.input_size)
            read = _cell(self.reader, zeros, state["reader"])
            inputs = torch.cat([read[0], self.dropout(self.embedding(words))], dim=-1)
            spoken = _cell(self.speaker, inputs, state["speaker"])
        return spoken[0], {"reader": read, "speaker": spoken}

    def _speak(self, state: dict[str, LayerState], clips: Tensor, words: Tensor, real: Tensor) -> Tensor:
        """States (N, L - 1, hidden) of N captions whose previous words are `words`; `clips` (N,) says whose they are.

        What the first LSTM does while speaking depends on no word, so it runs once a clip and not once a caption.
        """
        lengths = (real * torch.arange(1, real.shape[1] + 1, device=real.device)).amax(dim=1)
        read, (hidden, cell) = state["reader"], (part[clips].unsqueeze(0) for part in state["speaker"])
        with _float32(read[0]):
            zeros = read[0].new_zeros(len(read[0]), words.shape[1], self.reader.input_size)
            heard, _ = self.reader(zeros, (read[0].unsqueeze(0), read[1].unsqueeze(0)))
            inputs = torch.cat([heard[clips], self.dropout(self.embedding(words))], dim=-1)
            return _run(self.speaker, inputs, lengths.cpu(), (hidden, cell))[0]

    def _guessed_in_part(self, state: Any, clips: Tensor, words: Tensor, real: Tensor) -> Tensor:
        """Some previous words replaced by words drawn from the model's own teacher-forced prediction of them.

        Scheduled sampling (Bengio et al., NeurIPS 2015) in one parallel pass instead of a loop over words: Duckworth,
        Neelakantan, Goodrich, Kaiser, Bengio, "Parallel scheduled sampling" (2019). <bos> is never replaced.
        """
        with torch.no_grad():
            logits = self.output(self._speak(state, clips, words, real)).float()
            guesses = torch.distributions.Categorical(logits=logits).sample()
            chosen = torch.rand(words.shape, device=words.device) < self.config.scheduled_sampling
        guesses = torch.cat([words[:, :1], guesses[:, :-1]], dim=1)
        return torch.where(chosen, guesses, words)


def _run(lstm: nn.LSTM, inputs: Tensor, lengths: Tensor, state: LayerState | None = None) -> tuple[Tensor, LayerState]:
    """Outputs (N, T, hidden) and the state after `lengths` (N,) steps; nothing is computed on the padding."""
    if int(lengths.min()) == inputs.shape[1]:
        return lstm(inputs, state)
    packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    outputs, state = lstm(packed, state)
    return pad_packed_sequence(outputs, batch_first=True, total_length=inputs.shape[1])[0], state  # type: ignore


def _cell(lstm: nn.LSTM, inputs: Tensor, state: LayerState) -> LayerState:
    """One step of a one-layer LSTM with the weights that its full-sequence call uses."""
    return torch.lstm_cell(inputs, state, *lstm.all_weights[0])


def _float32(tensor: Tensor) -> torch.autocast:
    """Recurrent states add up over many steps: no autocast around them."""
    return torch.autocast(tensor.device.type, enabled=False)
