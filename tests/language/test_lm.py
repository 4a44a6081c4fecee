"""The language model: whole sentences against single steps, padding, batches, tied weights, perplexity, files."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import log_softmax

from mmfusion.language.lm import (
    LanguageModel,
    LmConfig,
    load_language_model,
    num_rows,
    pad_sentences,
    perplexities,
    perplexity,
)
from mmfusion.language.search import BeamConfig, search, select_rows
from mmfusion.language.vocab import BOS, EOS, PAD, Vocabulary
from mmfusion.types import InputError, Stepper, Stream

WORDS = 13


def make_model(**settings):
    torch.manual_seed(0)
    return LanguageModel(LmConfig(**{"embedding": 6, "hidden": 6, "dropout": 0.4, **settings}), WORDS).eval()


def make_sentences():
    return [[BOS, 4, 9, 5, EOS], [BOS, 7, EOS], [BOS, 5, 5, 12, 8, 3, EOS], [BOS, 11, 4, EOS]]


def test_it_is_a_stepper():
    assert isinstance(make_model(), Stepper)
    assert make_model(hidden=7).hidden_size == 7


@pytest.mark.parametrize("layers", [1, 2])
def test_repeated_steps_are_the_states_of_whole_sentences(layers):
    model = make_model(hidden=7, layers=layers)
    words = torch.randint(1, WORDS, (3, 6))
    states, logits, state = model.states(words), model(words), model.start(words)
    for position in range(6):
        hidden, after = model.advance(words[:, position], state)
        log_probs, again = model.step(words[:, position], state)
        torch.testing.assert_close(hidden, states[:, position])
        torch.testing.assert_close(log_probs, log_softmax(logits[:, position], -1))
        assert log_probs.dtype == torch.float32
        torch.testing.assert_close(after, again)
        state = after


def test_states_are_float32_under_autocast():
    model, words = make_model(), torch.randint(1, WORDS, (2, 4))
    with torch.autocast("cpu", torch.bfloat16):
        states, (hidden, _) = model.states(words), model.advance(words[:, 0], model.start(2))
        log_probs, _ = model.step(words[:, 0], model.start(2))
    assert states.dtype == hidden.dtype == log_probs.dtype == torch.float32
    assert torch.equal(states, model.states(words))


def test_padding_changes_nothing():
    model = make_model(layers=2)
    fed, _, real = pad_sentences(make_sentences())
    longer = torch.cat([fed, torch.full((4, 5), PAD)], dim=1)
    torch.testing.assert_close(model.states(longer)[:, : fed.shape[1]][real], model.states(fed)[real])


def test_a_batch_is_its_sentences_one_by_one():
    model = make_model(layers=2)
    fed, _, real = pad_sentences(make_sentences())
    together = model(fed)[real]
    alone = torch.cat([model(torch.tensor([sentence[:-1]]))[0] for sentence in make_sentences()])
    torch.testing.assert_close(together, alone)


def test_sentences_are_padded_behind():
    fed, next_words, real = pad_sentences([[BOS, 4, EOS], [BOS, 5, 6, 7, EOS]])
    assert fed.tolist() == [[BOS, 4, EOS, PAD], [BOS, 5, 6, 7]]
    assert next_words.tolist() == [[4, EOS, PAD, PAD], [5, 6, 7, EOS]]
    assert real.tolist() == [[True, True, False, False], [True] * 4]


def test_rows_of_a_state_can_be_chosen():
    model, words = make_model(layers=2), torch.tensor([4, 5, 6])
    _, state = model.advance(words, model.start(3))
    rows = torch.tensor([2, 0, 0])
    _, expected = model.advance(words[rows], model.start(3))
    torch.testing.assert_close(select_rows(state, rows), expected)


def test_it_starts_from_whatever_tells_the_number_of_rows():
    stream = Stream(torch.zeros(3, 2, 4), torch.ones(3, 2, dtype=torch.bool), 1.0)
    for given in (3, torch.zeros(3, 5), stream, {"audio": stream, "video": stream}, {"a": torch.zeros(3, 1)}):
        assert num_rows(given) == 3
        for hidden, cell in make_model(layers=2).start(given):
            assert hidden.shape == cell.shape == (3, 6) and not hidden.any() and not cell.any()


def test_it_can_be_searched():
    found = search(make_model(), 3, BeamConfig(beam_size=2, max_words=4))
    assert len(found) == 3 and found[0] == found[1] == found[2]


def test_tied_weights_are_one_tensor():
    tied, loose = make_model(tied=True), make_model()
    assert tied.output.weight is tied.embedding.weight
    assert tied.output.weight.data_ptr() == tied.embedding.weight.data_ptr()
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (loose, tied)]
    assert sizes[0] - sizes[1] == WORDS * 6
    with pytest.raises(InputError, match="hidden is 7, embedding 6"):
        make_model(tied=True, hidden=7)


def test_dropout_works_in_training_only():
    model, words = make_model(layers=2), torch.randint(1, WORDS, (2, 4))
    assert torch.equal(model(words), model(words))
    model.train()
    assert not torch.equal(model(words), model(words))
    assert not torch.equal(model.advance(words[:, 0], model.start(2))[0], model.advance(words[:, 0], model.start(2))[0])


def test_perplexity_of_a_uniform_model_is_the_number_of_words():
    model = make_model().train()
    torch.nn.init.zeros_(model.output.weight)
    torch.nn.init.zeros_(model.output.bias)
    value, num_words = perplexity(model, make_sentences())
    assert value == pytest.approx(WORDS, rel=1e-6)
    assert num_words == 4 + 2 + 6 + 3  # <eos> counts, <bos> does not
    assert model.training


def test_perplexity_by_hand_in_any_batches_and_any_order():
    model, sentences = make_model(), make_sentences()
    nats = 0.0
    for sentence in sentences:
        log_probs = log_softmax(model(torch.tensor([sentence[:-1]]))[0], -1)
        nats -= float(log_probs.gather(1, torch.tensor(sentence[1:])[:, None]).sum().detach())
    for batch_size in (1, 2, 100):
        assert perplexity(model, sentences, batch_size)[0] == pytest.approx(math.exp(nats / 15), rel=1e-5)
    assert perplexity(model, sentences[::-1]) == perplexity(model, sentences)
    values, counts = perplexities(model, {"one": sentences[:2], "other": sentences[2:]})
    whole = sum(math.log(values[name]) * counts[name] for name in values)
    assert math.exp(whole / sum(counts.values())) == pytest.approx(perplexity(model, sentences)[0], rel=1e-5)
    with pytest.raises(ValueError, match="at least one"):
        perplexity(model, [])


def write_folder(folder, **settings):
    vocabulary = Vocabulary.build(["a b c d e f g h i"])
    vocabulary.save(folder / "vocabulary.json")
    (folder / "config.yaml").write_text("model: {embedding: 6, hidden: 6, tied: true}\nseed: 3\n")
    model = make_model(tied=True, **settings)
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, folder / "weights.safetensors")
    return model, vocabulary


def test_a_folder_is_loaded(tmp_path):
    model, vocabulary = write_folder(tmp_path)
    loaded, words = load_language_model(tmp_path)
    fed = torch.randint(1, WORDS, (2, 5))
    assert words == vocabulary and not loaded.training
    assert loaded.output.weight is loaded.embedding.weight
    assert torch.equal(loaded(fed), model(fed))


@pytest.mark.parametrize("name", ["config.yaml", "vocabulary.json", "weights.safetensors"])
def test_what_is_missing_in_a_folder_is_named(tmp_path, name):
    write_folder(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"not the folder of a trained language model .it has no {name}"):
        load_language_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("config.yaml", "model: {embeding: 6}", r"config\.yaml: model: embeding: unknown key .did you mean embedding"),
        ("config.yaml", "seed: 3", r"config\.yaml: model: "),
        ("config.yaml", "model: {embedding: 5, hidden: 6}", r"weights\.safetensors: does not fit"),
        ("weights.safetensors", "pickle", r"weights\.safetensors: not a readable safetensors"),
    ],
)
def test_what_is_wrong_in_a_folder_is_named(tmp_path, name, text, reason):
    write_folder(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=reason):
        load_language_model(tmp_path)
