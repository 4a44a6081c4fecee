"""A language model: word embedding, LSTM, softmax (Sundermeyer, Schlüter, Ney, Interspeech 2012).

Mikolov et al. (Interspeech 2010) had a plain recurrent network in the LSTM's place. Tied weights: Press & Wolf, "Using
the output embedding to improve language models" (EACL 2017), section 3.

Conventions:

* A sentence is fed as <bos> w1 ... wn; what is predicted is w1 ... wn <eos>. Every sentence begins from a zero state.
* Padding stands behind a sentence, so no state of a real word depends on it.
* Perplexity is exp of the mean of -log p (nats) over w1 ... wn <eos> of all sentences: <eos> counts, <bos> and <pad> do
  not. A word outside the vocabulary counts as one <unk>, which is easier to predict than the word: perplexities compare
  only between models of one vocabulary, and with the share of <unk> beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax
from torch.nn.utils.rnn import pad_sequence

from mmfusion.config import configclass, load_tree, validate
from mmfusion.language.vocab import PAD, Vocabulary
from mmfusion.types import InputError, Stream

LayerState = tuple[Tensor, Tensor]
"""Hidden and cell state of one layer, (B, hidden) each."""

# What a folder must hold to be a trained language model.
FILES = ("config.yaml", "vocabulary.json", "weights.safetensors")


@configclass
class LmConfig:
    """Settings of a `LanguageModel`."""

    embedding: int = Field(default=256, gt=0)
    """features of a word"""
    hidden: int = Field(default=256, gt=0)
    """units of each LSTM layer"""
    layers: int = Field(default=1, gt=0)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """probability of dropping a feature of the words, between layers, and of the state before the softmax"""
    tied: bool = False
    """the softmax's matrix is that of the embedding; `hidden` must then equal `embedding`"""


class LanguageModel(nn.Module):
    """p(next word | words so far), over whole sentences and as a `Stepper`. Word 0 is <pad>.

    Raises InputError for tied weights of unequal widths.
    """

    def __init__(self, config: LmConfig, num_words: int) -> None:
        super().__init__()
        if config.tied and config.hidden != config.embedding:
            raise InputError(
                f"model.tied: needs hidden = embedding, and hidden is {config.hidden}, embedding {config.embedding}"
            )
        self.config = config
        self.embedding = nn.Embedding(num_words, config.embedding, padding_idx=PAD)
        between = config.dropout if config.layers > 1 else 0.0
        self.lstm = nn.LSTM(config.embedding, config.hidden, config.layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden, num_words)
        # Torch's unit normal would be far too large for a softmax that shares the matrix.
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        with torch.no_grad():
            self.embedding.weight[PAD] = 0
        if config.tied:
            self.output.weight = self.embedding.weight

    @property
    def hidden_size(self) -> int:
        """Width of a state."""
        return self.config.hidden

    @property
    def num_words(self) -> int:
        """V."""
        return self.output.out_features

    def forward(self, words: Tensor) -> Tensor:
        """words (N, L) int64 -> logits (N, L, V) of the word after each of them."""
        return self.output(self.dropout(self.states(words)))

    def logits_at(self, words: Tensor, real: Tensor) -> Tensor:
        """The same where `real` (N, L) bool is true, (R, V): the softmax is not taken over padding."""
        return self.output(self.dropout(self.states(words)[real]))

    def states(self, words: Tensor) -> Tensor:
        """words (N, L) int64 -> states (N, L, hidden) float32; state t has read words[:, : t + 1] from a zero state."""
        with _float32(self.embedding.weight):
            return self.lstm(self.dropout(self.embedding(words)))[0]

    def start(self, given: Any) -> tuple[LayerState, ...]:
        """The zero state (B, hidden) of each layer; B is `given` itself or the rows of a tensor, stream or dict."""
        zeros = self.embedding.weight.new_zeros(num_rows(given), self.hidden_size)
        return tuple((zeros, zeros) for _ in range(self.config.layers))

    def step(self, words: Tensor, state: tuple[LayerState, ...]) -> tuple[Tensor, tuple[LayerState, ...]]:
        """words (B,) int64 -> log p of the next word (B, V) float32, and the new state."""
        hidden, state = self.advance(words, state)
        return log_softmax(self.output(self.dropout(hidden)).float(), dim=-1), state

    def advance(self, words: Tensor, state: tuple[LayerState, ...]) -> tuple[Tensor, tuple[LayerState, ...]]:
        """The same without the softmax: the last layer's state (B, hidden) float32, and the new state."""
        found: list[LayerState] = []
        with _float32(self.embedding.weight):
            inputs = self.embedding(words)
            for layer, weights in zip(state, self.lstm.all_weights, strict=True):
                found.append(torch.lstm_cell(self.dropout(inputs), layer, *weights))
                inputs = found[-1][0]
        return inputs, tuple(found)


def num_rows(given: Any) -> int:
    """The batch size of what a stepper starts from: a number, a tensor, a stream, or a dict of such."""
    if isinstance(given, int):
        return given
    if isinstance(given, Mapping):
        return num_rows(next(iter(given.values())))
    return len(given.data if isinstance(given, Stream) else given)


def pad_sentences(sentences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Sentences <bos> w1 ... wn <eos> -> words to feed (N, L), next words (N, L) and where these are real (N, L)."""
    words = pad_sequence([torch.tensor(sentence) for sentence in sentences], batch_first=True, padding_value=PAD)
    return words[:, :-1], words[:, 1:], words[:, 1:] != PAD


@torch.inference_mode()
def perplexity(model: LanguageModel, sentences: Sequence[Sequence[int]], batch_size: int = 256) -> tuple[float, int]:
    """Perplexity of sentences <bos> w1 ... wn <eos> (ValueError without any), and over how many words it was taken.

    In float32, the model in evaluation mode and left in the mode that it had.
    """
    training, device = model.training, model.embedding.weight.device
    model.eval()
    # Alike in length: little padding, and the same batches whatever the order that the sentences come in.
    ordered = sorted(map(tuple, sentences), key=lambda sentence: (len(sentence), sentence))
    nats, num_words = 0.0, 0
    for first in range(0, len(ordered), batch_size):
        fed, next_words, real = (part.to(device) for part in pad_sentences(ordered[first : first + batch_size]))
        logits = model.output(model.states(fed)[real]).float()
        nats += float(cross_entropy(logits, next_words[real], reduction="sum"))
        num_words += len(logits)
    model.train(training)
    if num_words == 0:
        raise ValueError("perplexity needs at least one sentence")
    return math.exp(min(nats / num_words, 700.0)), num_words


def perplexities(
    model: LanguageModel, texts: Mapping[str, Sequence[Sequence[int]]]
) -> tuple[dict[str, float], dict[str, int]]:
    """Perplexity of each text by name, and over how many words it was taken."""
    found = {name: perplexity(model, sentences) for name, sentences in texts.items()}
    return {name: value for name, (value, _) in found.items()}, {name: count for name, (_, count) in found.items()}


def load_language_model(folder: str | Path) -> tuple[LanguageModel, Vocabulary]:
    """The model of a finished run, in evaluation mode, and its words. InputError names what is missing or wrong."""
    folder = Path(folder)
    for name in FILES:
        if not (folder / name).exists():
            raise InputError(f"{folder}: not the folder of a trained language model (it has no {name})")
    settings, path = folder / FILES[0], folder / FILES[2]
    config = validate(LmConfig, load_tree(settings).get("model"), f"{settings}: model")
    vocabulary = Vocabulary.load(folder / FILES[1])
    model = LanguageModel(config, len(vocabulary))
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); pickled weights are refused") from error
    except RuntimeError as error:
        raise InputError(f"{path}: does not fit the model of config.yaml: {str(error).splitlines()[-1]}") from error
    return model.eval(), vocabulary


def _float32(tensor: Tensor) -> torch.autocast:
    """Recurrent states add up over many steps: no autocast around them."""
    return torch.autocast(tensor.device.type, enabled=False)
