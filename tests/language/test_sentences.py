"""Sentence sources: every form, on small files and on the real ones, and the held-out part."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.language.sentences import (
    ActivityNetSource,
    Corpus,
    CsvSource,
    MsrvttSource,
    Parts,
    TextSource,
    divide,
    is_heldout,
    read_sentences,
)
from mmfusion.language.vocab import BOS, EOS, UNK, Vocabulary, tokenize
from mmfusion.types import InputError


def test_text(tmp_path):
    path = tmp_path / "sentences.txt"
    path.write_text("A dog barks.\r\n\n  a cat\u2028 sleeps \nvid2\tbirds sing", encoding="utf-8")
    found = read_sentences(TextSource(path=str(path)))
    assert found == ["A dog barks.", "a cat\u2028 sleeps", "vid2\tbirds sing"]
    path.write_text("vid1\ta dog barks\n\nvid2\tbirds sing\n")
    assert read_sentences(TextSource(path=str(path), column=1)) == ["a dog barks", "birds sing"]
    path.write_text("vid1\ta dog barks\nvid2 birds sing\n")
    with pytest.raises(InputError, match=r"sentences\.txt:2: has no column 1, only 1"):
        read_sentences(TextSource(path=str(path), column=1))


def test_csv(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_bytes('file,one,kor,two\na.wav,"Rain, and wind",비,it rains\nb.wav,a bell,종,\n'.encode("cp949"))
    source = CsvSource(path=str(path), columns=("one", "two"), encoding="cp949")
    assert read_sentences(source) == ["Rain, and wind", "it rains", "a bell"]
    with pytest.raises(InputError, match=r"captions\.csv: cannot be read in its encoding"):
        read_sentences(CsvSource(path=str(path), columns=("one",)))
    with pytest.raises(InputError, match="cannot be read in its encoding: unknown encoding: klingon"):
        read_sentences(CsvSource(path=str(path), columns=("one",), encoding="klingon"))
    with pytest.raises(InputError, match=r"no column 'caption' .columns: file, one, kor, two"):
        read_sentences(CsvSource(path=str(path), columns=("caption",), encoding="cp949"))
    path.write_text("one,two\nshort\n")
    assert read_sentences(CsvSource(path=str(path), columns=("two", "one"))) == ["short"]


def test_json_forms(tmp_path):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"v1": {"duration": 2.0, "sentences": ["One.", " Two."]}, "v2": {"sentences": ["3"]}}))
    assert read_sentences(ActivityNetSource(path=str(path))) == ["One.", "Two.", "3"]
    with pytest.raises(InputError, match="v1: holds no list of sentences"):
        read_sentences(MsrvttSource(path=str(path)))
    path.write_text(json.dumps({"video1": {"17": "one", "18": "two"}, "video2": {"19": "three"}}))
    assert read_sentences(MsrvttSource(path=str(path))) == ["one", "two", "three"]
    with pytest.raises(InputError, match="video1: holds no list of sentences"):
        read_sentences(ActivityNetSource(path=str(path)))


@pytest.mark.parametrize(
    ("text", "reason"), [("[]", "must be a JSON object"), ("{", "not readable as JSON"), ("{}", "holds no sentences")]
)
def test_broken_json_is_named(tmp_path, text, reason):
    path = tmp_path / "captions.json"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"captions\.json: {reason}"):
        read_sentences(MsrvttSource(path=str(path)))


def test_missing_and_empty_files_are_named(tmp_path):
    for kind in (TextSource, ActivityNetSource, MsrvttSource):
        with pytest.raises(InputError, match="nowhere: no such file"):
            read_sentences(kind(path=str(tmp_path / "nowhere")))
        with pytest.raises(InputError, match="is a folder"):
            read_sentences(kind(path=str(tmp_path)))
    (tmp_path / "empty.txt").write_text(" \n\n")
    with pytest.raises(InputError, match=r"empty\.txt: holds no sentences"):
        read_sentences(TextSource(path=str(tmp_path / "empty.txt")))


@pytest.mark.parametrize(
    ("source", "number"),
    [
        (CsvSource(path="text/audiocaps_train.csv", columns=("caption",)), 49_838),
        (
            CsvSource(
                path="text/clotho_captions_development.csv",
                columns=tuple(f"caption_{n}" for n in range(1, 6)),
                encoding="cp949",
            ),
            2_893 * 5,
        ),
        (ActivityNetSource(path="text/activitynet_train.json"), 37_421),
        (MsrvttSource(path="text/msrvtt_val.json"), 497 * 20),
        (MsrvttSource(path="text/msrvtt_test.json"), 2_990 * 20),
        (TextSource(path="msvd/sents_train_lc_nopunc.txt", column=1), 48_774),
    ],
    ids=lambda value: str(getattr(value, "path", value)).split("/")[-1],
)
def test_real_files(shared_data, source, number):
    """As many sentences as data/text/README.md counts, in words."""
    path = shared_data / source.path
    if not path.exists():
        pytest.skip(f"needs {path}")
    found = read_sentences(type(source)(**{**vars(source), "path": str(path)}))
    assert len(found) == number
    without_words = sum(not tokenize(sentence) for sentence in found)
    assert without_words < 1e-4 * number
    assert all(sentence.isascii() for sentence in found[:1000]) or "activitynet" in source.path


@settings(max_examples=50)
@given(st.lists(st.sampled_from("abcdefghij"), min_size=40, max_size=120), st.integers(0, 5))
def test_no_sentence_is_in_both_parts(letters, shift):
    sentences = [f"{one} {two} {len(letters)}." for one, two in zip(letters, letters[shift:], strict=False)]
    try:
        parts = divide(sentences, 0.4, 10)
    except InputError:  # so few that one part is empty
        return
    assert not set(parts.train) & set(parts.heldout)
    assert len(set(parts.heldout)) == len(parts.heldout)
    plain = [" ".join(tokenize(sentence)) for sentence in sentences]
    assert sorted(parts.train) == sorted(p for p in plain if p not in parts.heldout)
    again = divide(reversed(sentences), 0.4, 10)
    assert set(again.heldout) == set(parts.heldout) and sorted(again.train) == sorted(parts.train)


def test_how_a_sentence_is_written_does_not_move_it():
    one = divide([f"A dog sees {n} cats." for n in range(50)], 0.3, 10)
    other = divide([f" a DOG  sees {n} cats" for n in range(50)], 0.3, 10)
    assert one == other


def test_the_share_is_about_the_one_asked_for():
    assert sum(is_heldout(f"sentence {n}", 0.1) for n in range(5000)) == pytest.approx(500, abs=80)


def test_long_and_wordless_sentences_are_counted_and_left_out():
    sentences = [f"number {n}" for n in range(60)]
    parts = divide([*sentences, "one two three four", "...", "!"], 0.3, 3)
    assert parts.num_left_out == 3
    assert len(parts.train) + len(parts.heldout) == 60
    with pytest.raises(InputError, match=r"sources\.birds: 0 sentences are to train on, 0 are held out and 60 left"):
        divide(sentences, 0.3, 1, "birds")


def test_corpus():
    vocabulary = Vocabulary.build(["a dog barks", "a bell"])
    parts = {"one": Parts(("a dog", "a dog", "a bell"), ("a cat barks",), 2), "two": Parts(("rain",), ("a bell",), 0)}
    corpus = Corpus(vocabulary, parts)
    assert len(corpus.train) == 4 and corpus.train[0][0] == BOS and corpus.train[0][-1] == EOS
    assert corpus.train[3] == [BOS, UNK, EOS]
    assert corpus.heldout["all"] == corpus.heldout["one"] + corpus.heldout["two"]
    assert corpus.unk_share() == {"one": 1 / 3, "two": 0.0, "all": 1 / 5}
    assert corpus.sizes()["all"] == {"train": 4, "heldout": 2, "left_out": 2}
    assert corpus.counts()[vocabulary.numbers["a"]] == 3 and corpus.counts()[UNK] == 1
    assert len(corpus.counts()) == len(vocabulary)
    changed = Corpus(vocabulary, {**parts, "two": Parts(("rain",), ("a bell", "a dog"), 0)})
    assert changed.hashes()["one"] == corpus.hashes()["one"] and changed.hashes()["two"] != corpus.hashes()["two"]
