"""Word vectors: files of text, what is wrong in them, coverage, and the embedding that they fill."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmfusion.language.vectors import read_vectors
from mmfusion.language.vocab import PAD, UNK, Vocabulary
from mmfusion.types import InputError

VOCABULARY = Vocabulary(("<pad>", "<bos>", "<eos>", "<unk>", "dog", "b\u00e4r", "cat", "t-shirt"))


def write(tmp_path, text):
    path = tmp_path / "vectors.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_known_words_have_their_vector_and_others_zeros(tmp_path):
    path = write(tmp_path, "the 0 0 1\nb\u00e4r 1 -2 0.5\ndog 3 4e-1 5\n. . . 7 8 9\ndog 9 9 9\n<pad> 1 1 1\n")
    vectors = read_vectors(path, VOCABULARY)
    assert vectors.matrix.shape == (8, 3) and vectors.matrix.dtype == torch.float32
    assert vectors.known.nonzero()[:, 0].tolist() == [4, 5]
    torch.testing.assert_close(vectors.matrix[4], torch.tensor([3.0, 0.4, 5.0]))
    torch.testing.assert_close(vectors.matrix[5], torch.tensor([1.0, -2.0, 0.5]))
    assert not vectors.matrix[~vectors.known].any()


def test_a_header_and_odd_ends_of_lines_are_passed_over(tmp_path):
    path = write(tmp_path, "2 3\ncat 1 2 3 \r\n\n<unk> 4 5 6")
    vectors = read_vectors(path, VOCABULARY)
    assert vectors.known.nonzero()[:, 0].tolist() == [UNK, 6]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("dog 1 2 3\ncat 1 2\n", r"vectors\.txt:2: must read a word and 3 values"),
        ("dog 1 2 3\nthe 1 2\n", r"vectors\.txt:2: must read a word and 3 values"),
        ("dog 1 2 3\n\ncat 1 x 3\n", r"vectors\.txt:3: a value is not a number"),
        ("dog 1 nan 3\n", r"vectors\.txt:1: a value is not finite"),
        ("dog 1 1e99 3\n", r"vectors\.txt:1: a value is not finite"),
        ("dog\n", r"vectors\.txt:1: must read a word and its values"),
        ("", r"vectors\.txt: holds no vectors"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, reason):
    with pytest.raises(InputError, match=reason):
        read_vectors(write(tmp_path, text), VOCABULARY)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file"):
        read_vectors(tmp_path / "nowhere", VOCABULARY)
    with pytest.raises(InputError, match="is a folder"):
        read_vectors(tmp_path, VOCABULARY)


def test_coverage_is_one_sentence(tmp_path):
    vectors = read_vectors(write(tmp_path, "dog 1 2\ncat 3 4\nthe 1 1\n"), VOCABULARY)
    assert vectors.coverage() == "2 of 4 (50.0 %) words of the vocabulary have a vector"
    counts = [100, 50, 50, 5, 10, 3, 1, 1]
    assert vectors.coverage(counts) == vectors.coverage() + ", and 11 of 20 (55.0 %) running words"
    assert vectors.coverage(torch.tensor(counts)) == vectors.coverage(counts)


def test_an_embedding_is_filled(tmp_path):
    vectors = read_vectors(write(tmp_path, "dog 5 -5\ncat -5 5\n"), VOCABULARY)
    torch.manual_seed(0)
    embedding = nn.Embedding(8, 2, padding_idx=PAD)
    vectors.fill(embedding)
    known = vectors.known
    assert torch.equal(embedding.weight[known], vectors.matrix[known])
    assert not embedding.weight[PAD].any()
    torch.testing.assert_close(embedding.weight[1:][~known[1:]].std(), vectors.matrix[known].std())
    with pytest.raises(InputError, match=r"model\.embedding: is 3, and the vectors have 2 values"):
        vectors.fill(nn.Embedding(8, 3))


def test_no_known_word_and_all_known_words(tmp_path):
    embedding = nn.Embedding(8, 2, padding_idx=PAD)
    before = embedding.weight.detach().clone()
    read_vectors(write(tmp_path, "the 1 1\n"), VOCABULARY).fill(embedding)
    assert torch.equal(embedding.weight, before)
    path = write(tmp_path, "<unk> 1 1\ndog 1 2\nb\u00e4r 2 1\ncat 3 3\nt-shirt 4 4\n")
    read_vectors(path, VOCABULARY).fill(embedding)
    assert embedding.weight.isfinite().all()


def test_held_rows_stay_under_weight_decay(tmp_path):
    vectors = read_vectors(write(tmp_path, "dog 5 -5\ncat -5 5\n"), VOCABULARY)
    embedding = nn.Embedding(8, 2, padding_idx=PAD)
    vectors.fill(embedding)
    before = embedding.weight.detach().clone()
    restore = vectors.hold(embedding)
    optimiser = torch.optim.AdamW(embedding.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimiser.zero_grad()
        embedding(torch.arange(8)).square().sum().backward()
        assert not embedding.weight.grad[vectors.known].any()
        optimiser.step()
        restore()
    assert torch.equal(embedding.weight[vectors.known], vectors.matrix[vectors.known])
    moved = (embedding.weight != before).any(dim=1)
    assert moved.tolist() == [False, True, True, True, False, True, False, True]
