"""The LSTM that turns steps into states."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmfusion.config import configclass
from mmfusion.types import Stream


@configclass
class RecurrentConfig:
    """One LSTM over a stream."""

    size: Annotated[int, Field(gt=0)] = 128
    """Hidden units in each direction."""
    layers: Annotated[int, Field(gt=0)] = 1
    """LSTMs stacked on one another."""
    bidirectional: bool = False
    """Reads the clip backwards as well."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping a unit between layers and of the states that come out, in training."""


class Recurrent(nn.Module):
    """Stream (B, T, F) -> states (B, T, width) float32 on the same clock, zero where the mask is False.

    Reads from the first step to each clip's last real one; steps inside that are not real are read as zeros. `width` is
    the size, twice that when bidirectional. Runs in float32, also under autocast. Hochreiter & Schmidhuber 1997.
    """

    def __init__(self, width_in: int, config: RecurrentConfig) -> None:
        super().__init__()
        between = config.dropout if config.layers > 1 else 0.0
        self.lstm = nn.LSTM(
            width_in,
            config.size,
            config.layers,
            batch_first=True,
            dropout=between,
            bidirectional=config.bidirectional,
        )
        self.drop = nn.Dropout(config.dropout)
        self.width = config.size * (2 if config.bidirectional else 1)
        self._open_forget_gates(config.size)

    def forward(self, stream: Stream) -> Stream:
        with torch.autocast(stream.data.device.type, enabled=False):
            states = self.drop(self._read(stream.zeroed().float(), stream))
        states = stream.with_data(states)
        return states.with_data(states.zeroed())

    def _read(self, data: Tensor, stream: Stream) -> Tensor:
        # Forwards, no state can hear of what follows it, so padding needs no packing and no wait for the lengths.
        # A graph that is traced for export gets clips that are real to their end (see mmfusion/export.py).
        if not self.lstm.bidirectional or torch.compiler.is_exporting():
            return self.lstm(data)[0]
        lengths = stream.lengths.clamp(min=1).cpu()
        if bool((lengths == data.shape[1]).all()):
            return self.lstm(data)[0]
        packed = pack_padded_sequence(data, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=data.shape[1])[0]

    def _open_forget_gates(self, size: int) -> None:
        """Forget-gate bias 1 at the start (Jozefowicz et al. 2015, section 2.2): a young LSTM remembers."""
        for name, parameter in self.lstm.named_parameters():
            if name.startswith("bias_ih"):
                nn.init.constant_(parameter.data[size : 2 * size], 1.0)
            elif name.startswith("bias_hh"):
                nn.init.constant_(parameter.data[size : 2 * size], 0.0)
