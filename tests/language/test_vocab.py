"""Vocabulary: words, numbers, files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.language.vocab import BOS, EOS, SPECIALS, UNK, Vocabulary, tokenize
from mmfusion.types import InputError

CAPTIONS = ("A red ball bounces.", "a blue ball bounces!", "A siren wails, off-screen; it's loud")


def test_tokenize():
    assert tokenize("A man\u2019s T-shirt, and... 2 dogs!") == ["a", "man's", "t-shirt", "and", "2", "dogs"]
    assert tokenize(" -- <unk> '") == ["unk"]
    composed, decomposed = "Caf\u00e9 r\u00e9sum\u00e9", "Cafe\u0301 re\u0301sume\u0301"
    assert tokenize(composed) == tokenize(decomposed) == ["caf\u00e9", "r\u00e9sum\u00e9"]
    assert tokenize("आदमी गिटार बजाता है।") == ["आदमी", "गिटार", "बजाता", "है"]  # its vowel signs are no letters
    assert len(tokenize("İstanbul")) == 1


def test_words_stand_by_count_then_alphabet():
    vocabulary = Vocabulary.build(CAPTIONS)
    assert vocabulary.words[:7] == (*SPECIALS, "a", "ball", "bounces")
    assert list(vocabulary.words[7:]) == sorted(vocabulary.words[7:])
    assert Vocabulary.build(reversed(CAPTIONS)) == vocabulary
    assert Vocabulary.build(CAPTIONS, min_count=2).words == (*SPECIALS, "a", "ball", "bounces")
    assert len(vocabulary) == len(vocabulary.words) == 4 + 10


def test_encode_and_decode():
    vocabulary = Vocabulary.build(CAPTIONS, min_count=2)
    assert vocabulary.encode("A green ball") == [BOS, 4, UNK, 5, EOS]
    assert vocabulary.encode("a ball bounces a ball", max_words=2) == [BOS, 4, 5, EOS]
    assert vocabulary.decode([BOS, 4, UNK, EOS, 5, 0, 0]) == "a <unk>"


@settings(max_examples=50)
@given(st.lists(st.text(max_size=30), max_size=5))
def test_what_is_encoded_is_decoded(captions):
    vocabulary = Vocabulary.build(captions)
    for caption in captions:
        assert vocabulary.decode(vocabulary.encode(caption)) == " ".join(tokenize(caption))


def test_saved_and_loaded(tmp_path):
    vocabulary = Vocabulary.build((*CAPTIONS, "ein Bär läuft"))
    vocabulary.save(tmp_path / "vocabulary.json")
    loaded = Vocabulary.load(tmp_path / "vocabulary.json")
    assert loaded == vocabulary and loaded.hash == vocabulary.hash
    assert Vocabulary.build(CAPTIONS).hash != vocabulary.hash


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not a readable JSON"),
        ("[]", "words: must be a list"),
        ('{"words": "abc"}', "words: must be a list"),
        ('{"words": ["a", "b"]}', "words: must begin with <pad>"),
        (json.dumps({"words": [*SPECIALS, "a", "a"]}), "words: the word 'a' stands twice"),
        (json.dumps({"words": [*SPECIALS, 3]}), "words: every word"),
        (json.dumps({"words": [*SPECIALS, "a"], "hash": "0"}), "hash: does not fit"),
    ],
)
def test_a_broken_file_is_named_with_its_field(tmp_path, text, reason):
    path = tmp_path / "vocabulary.json"
    path.write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        Vocabulary.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Vocabulary.load(tmp_path / "none.json")


def test_msvd_captions_come_through_whole(shared_data):
    lines = (shared_data / "msvd" / "sents_val_lc_nopunc.txt").read_text().splitlines()
    captions = [line.split("\t")[1] for line in lines]
    vocabulary = Vocabulary.build(captions)
    assert all(vocabulary.decode(vocabulary.encode(caption)) == " ".join(caption.split()) for caption in captions)
