"""A causal language model of Hugging Face transformers as a `Stepper`, for decoders that say its tokenizer's tokens.

A mixture of two steppers needs one numbering of words. `TokenVocabulary` numbers tokens as every vocabulary here does
(specials first), so a decoder trained on it and a `CausalModel` say the same word by the same number.

Conventions:

* <eos> is the tokenizer's end of text, and <bos> its beginning, or its end where it has none (GPT-2).
* <unk> has the probability of all the network's tokens that are not in the vocabulary, so that a word that the decoder
  does not know costs no more than it should when weights are tuned. <pad> and <bos> are never said; their log p is -30,
  not minus infinity, so that a weight of 0 in a log-linear mix is safe.
* The network is frozen and stays in evaluation mode: a mixture that is trained does not train it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from mmfusion.language.lm import num_rows
from mmfusion.language.vocab import BOS, EOS, PAD, SPECIALS, UNK, Vocabulary, tokenize
from mmfusion.types import InputError

# Instead of log 0.
_NEVER = -30.0


@dataclass(frozen=True)
class TokenVocabulary(Vocabulary):
    """The tokens of a tokenizer as words; `encode` and `decode` are the tokenizer's, in this vocabulary's numbers."""

    tokenizer: Any = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, tokenizer: Any, captions: Iterable[str] | None = None) -> TokenVocabulary:
        """All tokens in the tokenizer's order, its specials left out; with captions, only tokens that stand in these.

        Give it captions of the training split only.
        """
        ids: Iterable[int] = range(len(tokenizer))
        if captions is not None:
            ids = sorted({number for caption in captions for number in _ids(tokenizer, caption)})
        special = set(tokenizer.all_special_ids)
        tokens = tokenizer.convert_ids_to_tokens([number for number in ids if number not in special])
        return cls(SPECIALS + tuple(token for token in tokens if token not in (None, "", *SPECIALS)), tokenizer)

    def encode(self, caption: str | Sequence[str], max_words: int | None = None) -> list[int]:
        """<bos> t1 ... tn <eos>, at most `max_words` tokens between the two; a sequence is taken as tokens."""
        tokens = caption
        if isinstance(caption, str):
            tokens = self.tokenizer.convert_ids_to_tokens(_ids(self.tokenizer, caption))
        return super().encode(list(tokens), max_words)

    def decode(self, numbers: Iterable[int]) -> str:
        """The sentence up to the first <eos>, its tokens put together to words."""
        return self.tokenizer.convert_tokens_to_string(self.words_of(numbers)).strip()


class CausalModel(nn.Module):
    """A frozen transformers network that predicts the words of `vocabulary`, each of them a token of `tokenizer`.

    Takes the place of a `LanguageModel` in late fusion.

    Raises InputError when a word is no token, or the tokenizer marks no end of text.
    """

    ids: Tensor

    def __init__(self, network: nn.Module, tokenizer: Any, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.register_buffer("ids", torch.tensor(token_ids(tokenizer, vocabulary)), persistent=False)

    def train(self, mode: bool = True) -> CausalModel:
        """Leaves the network in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, words: Tensor) -> Tensor:
        """words (N, L) int64, padding behind a sentence -> log p (N, L, V) float32 of the word after each of them."""
        return self._log_probs(self.network(input_ids=self.ids[words], use_cache=False).logits)

    @property
    def num_words(self) -> int:
        """V."""
        return len(self.ids)

    def logits_at(self, words: Tensor, real: Tensor) -> Tensor:
        """The same where `real` (N, L) bool is true, (R, V)."""
        return self(words)[real]

    def start(self, given: Any) -> dict[str, Any]:
        """The state before <bos>: nothing read. `given` is what `LanguageModel.start` takes."""
        # The search counts rows by the first tensor, and there are no keys and values yet.
        return {"rows": self.ids.new_zeros(num_rows(given)), "cache": ()}

    def step(self, words: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """words (B,) int64 -> log p of the next word (B, V) float32, and the state: keys and values of each layer."""
        from transformers import DynamicCache

        cache = DynamicCache(state["cache"]) if state["cache"] else DynamicCache()
        found = self.network(input_ids=self.ids[words][:, None], past_key_values=cache, use_cache=True)
        kept = tuple((keys, values) for keys, values, *_ in found.past_key_values)
        return self._log_probs(found.logits[:, -1]), {"rows": state["rows"], "cache": kept}

    def _log_probs(self, logits: Tensor) -> Tensor:
        """Logits (..., tokens) of the tokenizer's numbers -> log p (..., V) of the vocabulary's."""
        every = log_softmax(logits.float(), dim=-1)
        found = every.index_select(-1, self.ids)
        said = torch.zeros(every.shape[-1], dtype=torch.bool, device=every.device)
        said[self.ids[[EOS, *range(len(SPECIALS), len(self.ids))]]] = True
        found[..., UNK] = every.masked_fill(said, float("-inf")).logsumexp(dim=-1)
        found[..., [PAD, BOS]] = _NEVER
        return found.clamp(min=_NEVER)


def load_causal(model: str, vocabulary: Vocabulary) -> CausalModel:
    """The causal model by a name on the hub or a local folder, for a decoder that has this vocabulary.

    Raises InputError when it cannot be had or does not fit.
    """
    import transformers

    try:
        network = transformers.AutoModelForCausalLM.from_pretrained(model)
    except Exception as error:
        raise InputError(f"{model}: cannot be loaded by transformers: {_first_line(error)}") from error
    try:
        return CausalModel(network, load_tokenizer(model), vocabulary)
    except InputError as error:
        raise InputError(f"{model}: {error}") from error


def load_tokenizer(model: str) -> Any:
    """The tokenizer by a name on the hub or a local folder. Raises InputError."""
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(model)
    except Exception as error:
        raise InputError(f"{model}: its tokenizer cannot be loaded by transformers: {_first_line(error)}") from error


def token_ids(tokenizer: Any, vocabulary: Vocabulary) -> list[int]:
    """The tokenizer's number of each word (V,); what is never said is fed as the end of text where it has no token."""
    end = tokenizer.eos_token_id
    if end is None:
        raise InputError("the tokenizer has no end-of-text token, and sentences must end")
    known = tokenizer.get_vocab()
    unknown = next((word for word in vocabulary.words[len(SPECIALS) :] if word not in known), None)
    if unknown is not None:
        raise InputError(f"the word {unknown!r} is no token of the tokenizer: the decoder was trained on other words")
    bos, unk = tokenizer.bos_token_id, tokenizer.unk_token_id
    specials = [end, end if bos is None else bos, end, end if unk is None else unk]
    return specials + [known[word] for word in vocabulary.words[len(SPECIALS) :]]


def _ids(tokenizer: Any, caption: str) -> list[int]:
    """Token numbers of a caption by the house's conventions (lower case, no punctuation), without specials."""
    return tokenizer(" ".join(tokenize(caption)), add_special_tokens=False)["input_ids"]


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
