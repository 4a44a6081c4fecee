"""Caption training and search against the plain way of doing them, for `bench`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmfusion.heads.caption import CaptionConfig, CaptionHead
from mmfusion.language.search import BeamConfig, beam
from mmfusion.types import Stream, Targets

# The shape of MSVD's batches as S2VT reads them, every tenth frame: clips of 2 to 25 s with a median of 8 s; captions
# of 3 words and more with a mean of 7.3, the longest of a batch of 256 with 20 (where longer ones are cut).
CLIPS, CAPTIONS, RATE, LONGEST, WIDTH, WORDS = 32, 8, 3.0, 20, 256, 3000
SHORTEST_S, MEDIAN_S, SPREAD, LONGEST_S = 2.0, 8.0, 0.5, 25.0
EMBEDDING, HIDDEN = 256, 256


class PlainS2vt(nn.Module):
    """S2VT as the paper draws it: every caption reads its clip anew, one step and then one word at a time.

    It reads the zeros behind a short clip too, as the paper does. The softmax is taken at every position up to the
    longest caption of the batch; padding is left out of the loss.
    """

    def __init__(self, width: int, num_words: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.LSTMCell(width, hidden)
        self.second = nn.LSTMCell(hidden + embedding, hidden)
        self.embedding = nn.Embedding(num_words, embedding, padding_idx=0)
        self.output = nn.Linear(hidden, num_words)
        self.width, self.hidden = width, hidden

    def forward(self, steps: Tensor, words: Tensor) -> Tensor:
        """steps (N, T, F), words (N, L) -> the mean cross-entropy of the next word."""
        zeros = steps.new_zeros(len(steps), self.hidden)
        first, second = (zeros, zeros), (zeros, zeros)
        silence = steps.new_zeros(len(steps), self.embedding.embedding_dim)
        for step in steps.unbind(1):
            first = self.first(step, first)
            second = self.second(torch.cat([first[0], silence], dim=1), second)
        blank = steps.new_zeros(len(steps), self.width)
        logits = []
        for word in words[:, :-1].unbind(1):
            first = self.first(blank, first)
            second = self.second(torch.cat([first[0], self.embedding(word)], dim=1), second)
            logits.append(self.output(second[0]))
        return cross_entropy(torch.stack(logits, dim=1).flatten(0, 1), words[:, 1:].flatten(), ignore_index=0)


def training_pair(half: bool) -> tuple[Callable[[], None], Callable[[], None]]:
    """One update of `CaptionHead` and one of `PlainS2vt`, on the same captions; `half`: ours under bfloat16."""
    stream, targets = _batch(CLIPS)
    assert targets.words is not None
    ours = CaptionHead(CaptionConfig(embedding=EMBEDDING, hidden=HIDDEN), WIDTH, WORDS)
    plain = PlainS2vt(WIDTH, WORDS, EMBEDDING, HIDDEN)
    steps, words = stream.data.repeat_interleave(CAPTIONS, 0), targets.words.flatten(0, 1)

    def update() -> None:
        ours.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            loss = ours.loss(ours(stream, targets), targets)
        loss.backward()

    def plain_update() -> None:
        plain.zero_grad()
        plain(steps, words).backward()

    return update, plain_update


def search_pair() -> tuple[Callable[[], object], Callable[[], object]]:
    """Beam search over 32 clips at once, and over one after the other."""
    stream, _ = _batch(32)
    head = CaptionHead(CaptionConfig(embedding=EMBEDDING, hidden=HIDDEN), WIDTH, WORDS).eval()
    how = BeamConfig(beam_size=5, max_words=16)
    rows = [Stream(stream.data[row : row + 1], stream.mask[row : row + 1], stream.rate) for row in range(32)]
    return lambda: beam(head, stream, how), lambda: [beam(head, row, how) for row in rows]


def _batch(num: int) -> tuple[Stream, Targets]:
    generator = torch.Generator().manual_seed(0)
    seconds = MEDIAN_S * (SPREAD * torch.randn(num, generator=generator)).exp()
    steps = (RATE * seconds.clamp(SHORTEST_S, LONGEST_S)).long()
    real = torch.arange(int(steps.max())) < steps[:, None]
    data = torch.randn(*real.shape, WIDTH, generator=generator) * real[..., None]
    stream = Stream(data, real, RATE)
    lengths = torch.poisson(torch.full((num, CAPTIONS), 4.3), generator=generator).long().clamp(max=LONGEST - 3) + 3
    lengths[0, 0] = LONGEST
    places = torch.arange(LONGEST + 2)
    words = torch.randint(4, WORDS, (num, CAPTIONS, LONGEST + 2), generator=generator)
    words[..., 0] = 1
    words = torch.where(places == lengths[..., None] + 1, 2, words)
    mask = places <= lengths[..., None] + 1
    return stream, Targets(words=words.masked_fill(~mask, 0), word_mask=mask)
