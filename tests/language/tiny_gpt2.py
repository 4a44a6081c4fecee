"""A tiny GPT-2 with random weights and a tokenizer that was trained on a few captions, as a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

END = "<|endoftext|>"


def write_gpt2(path: Path, captions: Iterable[str]) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    # "<pad>" is an ordinary token of this tokenizer: it must not be taken for the vocabulary's.
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<pad>", END], show_progress=False)
    bpe.train_from_iterator([caption.lower() for caption in captions], trainer)
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, bos_token=END).save_pretrained(path)
    torch.manual_seed(0)
    size = bpe.get_vocab_size() + 3  # networks are often padded to a round number of tokens
    sizes = {"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2}
    config = GPT2Config(vocab_size=size, **sizes, initializer_range=0.5, bos_token_id=1, eos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(path)
    return path
