"""What a caption head hears of a clip: the reading LSTM of S2VT, or the mean over time.

A reader's state is a tuple of (B, ...) tensors, zero for a clip without a real step. `read` takes projected steps;
`say` gives what the speaker hears while it speaks: (B, num, width), and the state after `num` words.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from mmfusion.types import Stream

LayerState = tuple[Tensor, Tensor]
"""Hidden and cell state of one LSTM, (B, hidden) each."""
ReaderState = tuple[Tensor, ...]


class S2vtReader(nn.Module):
    """The first LSTM of S2VT: it reads the steps, and then zeros while the sentence is spoken.

    Venugopalan, Rohrbach, Donahue, Mooney, Darrell, Saenko, "Sequence to Sequence - Video to Text" (ICCV 2015).
    """

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size, hidden, batch_first=True)
        self.width = hidden

    def read(self, steps: Stream) -> tuple[Tensor, ReaderState]:
        """States (B, T, width) of the second LSTM's input while the steps are read, and the state after them."""
        return run_lstm(self.lstm, steps.data, reading_ends(steps))

    def say(self, state: ReaderState, num: int) -> tuple[Tensor, ReaderState]:
        hidden, cell = state
        zeros = hidden.new_zeros(len(hidden), num, self.lstm.input_size)
        heard, (hidden, cell) = self.lstm(zeros, (hidden[None], cell[None]))
        return heard, (hidden[0], cell[0])


class MeanReader(nn.Module):
    """The mean over the real steps, heard with every word.

    Venugopalan, Xu, Donahue, Rohrbach, Mooney, Saenko, "Translating Videos to Natural Language Using Deep Recurrent
    Neural Networks" (NAACL 2015), section 3.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.width = size

    def read(self, steps: Stream) -> tuple[None, ReaderState]:
        """There is nothing to hear before the first word; the state is the mean (B, width)."""
        count = steps.mask.sum(dim=1, keepdim=True).clamp(min=1)
        return None, (steps.zeroed().sum(dim=1) / count,)

    def say(self, state: ReaderState, num: int) -> tuple[Tensor, ReaderState]:
        return state[0].unsqueeze(1).expand(-1, num, -1), state


def reading_ends(steps: Stream) -> Tensor:
    """(B,) on the CPU, at least 1: what a clip without steps reads is thrown away afterwards."""
    return steps.lengths.clamp(min=1).cpu()


def run_lstm(lstm: nn.LSTM, inputs: Tensor, lengths: Tensor, state: LayerState | None = None
             ) -> tuple[Tensor, LayerState]:  # fmt: skip
    """Outputs (N, T, hidden) and the state (N, hidden) after `lengths` (N,) steps; nothing is computed on the padding.

    `state` holds (1, N, hidden) tensors, as nn.LSTM takes them. Inputs may be narrower than the LSTM's: the features
    missing at their end are zeros.
    """
    missing = lstm.input_size - inputs.shape[-1]
    if missing and inputs.is_cuda:  # cuDNN wants all weights of a layer in one piece
        inputs, missing = pad(inputs, (0, missing)), 0
    run = partial(_run_narrow, lstm) if missing else lstm
    if int(lengths.min()) == inputs.shape[1]:
        outputs, (hidden, cell) = run(inputs, state)
        return outputs, (hidden[0], cell[0])
    packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    outputs, (hidden, cell) = run(packed, state)
    padded = pad_packed_sequence(outputs, batch_first=True, total_length=inputs.shape[1])[0]
    return padded, (hidden[0], cell[0])


def _run_narrow(lstm: nn.LSTM, inputs: Tensor | PackedSequence, state: LayerState | None) -> tuple[Any, LayerState]:
    """`lstm(inputs, state)` without the products with features that are zero, behind those that `inputs` has."""
    data = inputs.data if isinstance(inputs, PackedSequence) else inputs
    ingoing, *others = lstm.all_weights[0]
    weights = [ingoing[:, : data.shape[-1]], *others]
    rows = int(inputs.batch_sizes[0]) if isinstance(inputs, PackedSequence) else len(inputs)
    zeros = data.new_zeros(1, rows, lstm.hidden_size)
    first = (zeros, zeros) if state is None else state
    how = (True, 1, 0.0, lstm.training, False)  # has biases, layers, dropout, training, bidirectional
    if not isinstance(inputs, PackedSequence):
        outputs, hidden, cell = torch.lstm(data, first, weights, *how, True)
        return outputs, (hidden, cell)
    order, back = inputs.sorted_indices, inputs.unsorted_indices
    first = tuple(part[:, order] for part in first)
    outputs, hidden, cell = torch.lstm(data, inputs.batch_sizes, first, weights, *how)
    return PackedSequence(outputs, inputs.batch_sizes, order, back), (hidden[:, back], cell[:, back])


def lstm_cell(lstm: nn.LSTM, inputs: Tensor, state: LayerState) -> LayerState:
    """One step of a one-layer LSTM with the weights that its full-sequence call uses."""
    return torch.lstm_cell(inputs, state, *lstm.all_weights[0])


def in_float32(tensor: Tensor) -> torch.autocast:
    """Recurrent states add up over many steps: no autocast around them."""
    return torch.autocast(tensor.device.type, enabled=False)
