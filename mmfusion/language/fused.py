"""A language model fused into a caption decoder at three depths.

Venugopalan, Hendricks, Mooney, Saenko, "Improving LSTM-based Video Description with Linguistic Knowledge Mined from
Text" (EMNLP 2016), section 3. With the decoder's state h, the language model's state h_lm, both after w_1 ... w_t:

    early   the language model's embedding, word LSTM and output layer are the decoder's first weights; the columns of
            its LSTM that read the clip start at zero, so the decoder begins as the language model
    deep    p(w) = softmax(W h + U h_lm + b), the language model frozen; with the gate of Gulcehre et al. 2015,
            "On Using Monolingual Corpora in Neural Machine Translation" (section 4.2):
            p(w) = softmax(W h + U (g h_lm) + b), g = sigmoid(v h_lm + c)
    late    p(w) = (1 - a) p_decoder(w) + a p_lm(w), or log-linear: p(w) ~ p_decoder(w)^(1 - a) p_lm(w)^a; the decoder
            learns on its own, and a is tuned. The mixing is that of all late fusion: the language model is one more
            member of the mixture.

What is fused is a caption decoder with the attributes of `heads.caption.CaptionHead`; nothing here imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from mmfusion.config import configclass
from mmfusion.language.causal import CausalModel
from mmfusion.language.lm import LanguageModel
from mmfusion.language.vectors import VectorsConfig, read_vectors
from mmfusion.language.vocab import Vocabulary
from mmfusion.types import InputError, Output, Stream, Targets


@configclass
class EarlyLanguageConfig:
    """The language model's weights are the decoder's first."""

    depth: Literal["early"] = "early"
    model: str
    """Run folder of the language model."""


@configclass
class DeepLanguageConfig:
    """Its state beside the decoder's before the softmax."""

    depth: Literal["deep"] = "deep"
    model: str
    """Run folder of the language model."""
    gate: bool = False
    """Lets the model close its ear to the language model, word by word."""
    freeze_captioner: bool = False
    """Only what joins the two is trained, and nothing else of the whole model; start such a run from a trained one
    (training.start_from)."""


@configclass
class LateLanguageConfig:
    """Its word distribution mixed with the decoder's at every word."""

    depth: Literal["late"] = "late"
    model: str
    """Run folder of the language model, or what `source` asks for."""
    source: Literal["run", "transformers"] = "run"
    """transformers: `model` is a causal language model of that library, a folder or a name on its hub, and the head
    says the tokens of its tokenizer (vocabulary.tokenizer)."""
    rule: Literal["linear", "loglinear"] = "linear"
    """linear: weighted mean of probabilities, as in the paper; loglinear: weighted product."""
    weight: Annotated[float, Field(ge=0, le=1)] | Literal["tuned"] = "tuned"
    """The language model's share; tuned: chosen on validation, by the loss."""


LanguageConfig = Annotated[EarlyLanguageConfig | DeepLanguageConfig | LateLanguageConfig, Field(discriminator="depth")]


def embed(embedding: nn.Embedding, config: VectorsConfig, words: Sequence[str]) -> None:
    """Gives every word that has a vector its vector, for good where `use` is frozen. InputError when sizes differ."""
    vectors = read_vectors(config.path, Vocabulary(tuple(words)))
    vectors.fill(embedding)
    if config.use == "frozen":
        keep = vectors.hold(embedding)

        def before_reading(module: nn.Module, inputs: object) -> None:
            keep()

        embedding.register_forward_pre_hook(before_reading)


def begin_as(decoder: Any, model: LanguageModel) -> None:
    """Early fusion: gives the decoder the language model's weights. InputError when the sizes differ.

    From the language model's start state (zeros) the decoder's word distribution is then the language model's.
    """
    speaker, word_lstm = decoder.speaker, model.lstm
    sizes = (decoder.embedding.embedding_dim, speaker.hidden_size, speaker.num_layers)
    wanted = (model.embedding.embedding_dim, word_lstm.hidden_size, word_lstm.num_layers)
    if sizes != wanted:
        raise InputError(
            "language.model: early fusion needs equal sizes; embedding, hidden and layers are "
            f"{', '.join(map(str, wanted))} in the language model and {', '.join(map(str, sizes))} in the head"
        )
    with torch.no_grad():
        decoder.embedding.weight.copy_(model.embedding.weight)
        speaker.weight_ih_l0.zero_()
        speaker.weight_ih_l0[:, -wanted[0] :] = word_lstm.weight_ih_l0
        for name in ("weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            getattr(speaker, name).copy_(getattr(word_lstm, name))
        decoder.output.weight.copy_(model.output.weight)
        decoder.output.bias.copy_(model.output.bias)


class Frozen(nn.Module):
    """Holds a language model whose weights never move and whose dropout never acts."""

    def __init__(self, model: LanguageModel | CausalModel) -> None:
        super().__init__()
        self.model: Any = model.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.model.eval()
        return self


class LanguageMember(Frozen):
    """The language model as a member of a late mixture: it hears the words and no stream, and learns nothing."""

    reads_all = True

    def forward(self, streams: Mapping[str, Stream], targets: Targets) -> Output:
        """Logits (R, V), rows as of a caption head."""
        fed = targets.fed_words()
        if fed is None:
            like = next(self.model.parameters())
            return Output(like.new_zeros(0, self.model.num_words), "categorical")
        words, real, _ = fed
        with torch.no_grad():
            return Output(self.model.logits_at(words, real), "categorical")

    def loss(self, output: Output, targets: Targets) -> Tensor:
        return output.logits.new_zeros((), dtype=torch.float32)

    def start(self, given: Mapping[str, Stream]) -> Any:
        return self.model.start(next(iter(given.values())))

    def step(self, words: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.model.step(words, state)


class DeepLanguage(Frozen):
    """A caption decoder with a frozen language model beside it, joined before the softmax; a head and a `Stepper`."""

    def __init__(self, captioner: nn.Module, model: LanguageModel, config: DeepLanguageConfig) -> None:
        super().__init__(model)
        self.captioner: Any = captioner
        self.loss_weight = captioner.loss_weight
        self.join = nn.Linear(model.hidden_size, model.num_words, bias=False)
        self.gate = nn.Linear(model.hidden_size, 1) if config.gate else None

    def forward(self, stream: Stream, targets: Targets) -> Output:
        """Logits (R, V), rows as of a caption head."""
        spoken = self.captioner.listen(stream, targets, self._logits_of)
        if spoken is None:
            return self.captioner(stream, targets)
        return Output(self._logits_of(spoken), "categorical")

    def loss(self, output: Output, targets: Targets) -> Tensor:
        return self.captioner.loss(output, targets)

    def start(self, given: Stream) -> dict[str, Any]:
        return {"captioner": self.captioner.start(given), "language": self.model.start(given)}

    def step(self, words: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """words (B,) int64 -> log p of the next word (B, V) float32, and the new state."""
        hidden, spoken = self.captioner.advance(words, state["captioner"])
        heard, language = self.model.advance(words, state["language"])
        return log_softmax(self._logits(hidden, heard).float(), dim=-1), {"captioner": spoken, "language": language}

    def _logits_of(self, spoken: Any) -> Tensor:
        with torch.no_grad():
            heard = self.model.states(spoken.words)[spoken.real]
        return self._logits(self.captioner.states_of(spoken), heard)

    def _logits(self, hidden: Tensor, heard: Tensor) -> Tensor:
        if self.gate is not None:
            heard = torch.sigmoid(self.gate(heard)) * heard
        drop = self.captioner.dropout
        return self.captioner.output(drop(hidden)) + self.join(drop(heard))


def train_only_joins(model: nn.Module) -> None:
    """Leaves nothing to train but what joins language models to decoders."""
    model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, DeepLanguage):
            module.join.requires_grad_(True)
            if module.gate is not None:
                module.gate.requires_grad_(True)
