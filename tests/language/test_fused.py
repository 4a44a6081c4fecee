"""A language model fused into a caption decoder: what the paper says of each depth, exactly."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import log_softmax

from mmfusion.fusion.late import Mix, MixConfig
from mmfusion.fusion.weights import FixedWeights, TunedWeights
from mmfusion.heads.caption import CaptionConfig, CaptionHead
from mmfusion.language.fused import (
    DeepLanguage,
    DeepLanguageConfig,
    LanguageMember,
    begin_as,
    embed,
    train_only_joins,
)
from mmfusion.language.lm import LanguageModel, LmConfig
from mmfusion.language.search import BeamConfig, search
from mmfusion.language.vectors import VectorsConfig
from mmfusion.types import Head, InputError, Stepper, Stream, Targets

WIDTH, WORDS = 6, 11


def make_head(reader: str = "s2vt", **settings) -> CaptionHead:
    torch.manual_seed(0)
    config = CaptionConfig(reader=reader, **{"embedding": 5, "hidden": 7, **settings})  # type: ignore[arg-type]
    return CaptionHead(config, WIDTH, WORDS).eval()


def make_model(scale: float = 1.0, **settings) -> LanguageModel:
    torch.manual_seed(1)
    model = LanguageModel(LmConfig(**{"embedding": 5, "hidden": 7, **settings}), WORDS).eval()
    with torch.no_grad():
        model.output.weight.mul_(scale)
    return model


def make_batch() -> tuple[Stream, Targets]:
    generator = torch.Generator().manual_seed(2)
    mask = torch.arange(4) < torch.tensor([4, 2, 0])[:, None]
    words = torch.randint(3, WORDS, (3, 2, 7), generator=generator)
    words[..., 0], words[..., -1] = 1, 2
    there = torch.ones_like(words, dtype=torch.bool)
    there[1, 1], there[0, 0, 4:] = False, False
    return Stream(torch.randn(3, 4, WIDTH, generator=generator), mask, 2.0), Targets(words=words, word_mask=there)


def late_mix(head: CaptionHead, model: LanguageModel, config: MixConfig) -> Mix:
    return Mix({"captioner": Mix({"fused": head}), "language": LanguageMember(model)}, config).eval()


def by_steps(stepper: Stepper, given, targets: Targets, clip: int, caption: int) -> torch.Tensor:
    state = stepper.start(given)
    rows = []
    said = targets.words[clip, caption][targets.word_mask[clip, caption]]
    for word in said[:-1]:
        log_probs, state = stepper.step(word.expand(3), state)
        rows.append(log_probs[clip])
    return torch.stack(rows)


@pytest.mark.parametrize("reader", ["s2vt", "mean"])
def test_after_begin_as_the_decoder_speaks_as_the_language_model(reader):
    head, model = make_head(reader), make_model()
    begin_as(head, model)
    _, targets = make_batch()
    blank = Stream(torch.zeros(3, 4, WIDTH), torch.zeros(3, 4, dtype=torch.bool), 2.0)  # the LM's start state
    words, real, _ = targets.fed_words()
    expected = model(words)[real]
    torch.testing.assert_close(head(blank, targets).logits, expected)


@pytest.mark.parametrize("reader", ["s2vt", "mean"])
def test_what_is_seen_does_not_reach_the_first_decoder(reader):
    """The columns that read the clip are zero: with the mean reader the words are the language model's for any clip."""
    head, model = make_head(reader), make_model()
    begin_as(head, model)
    assert head.speaker.weight_ih_l0[:, : head.reader.width].abs().sum() == 0
    assert torch.equal(head.speaker.weight_ih_l0[:, head.reader.width :], model.lstm.weight_ih_l0)


def test_begin_as_refuses_other_sizes():
    with pytest.raises(InputError, match="equal sizes; embedding, hidden and layers are 5, 7, 2"):
        begin_as(make_head(), make_model(layers=2))


@pytest.mark.parametrize("rule", ["linear", "loglinear"])
@pytest.mark.parametrize("scale", [1.0, 80.0])
def test_late_mixing_is_the_average_of_probabilities_and_finite(rule, scale):
    head, model = make_head(), make_model(scale)
    with torch.no_grad():
        head.output.weight.mul_(scale)
        head.output.bias.copy_(torch.linspace(-scale, scale, WORDS))
    weights = FixedWeights(values={"captioner": 0.7, "language": 0.3})
    mix = late_mix(head, model, MixConfig(rule=rule, weights=weights))
    stream, targets = make_batch()
    output = mix({"fused": stream}, targets)
    words, real, _ = targets.fed_words()
    own, other = log_softmax(head(stream, targets).logits, -1), log_softmax(model(words)[real], -1)
    if rule == "linear":
        expected = (0.7 * own.exp() + 0.3 * other.exp()).log()
        torch.testing.assert_close(output.log_probs().exp(), expected.exp())
    else:
        expected = log_softmax(0.7 * own + 0.3 * other, -1)
        torch.testing.assert_close(output.log_probs(), expected)
    assert output.log_probs().isfinite().all()
    torch.testing.assert_close(output.log_probs()[:3], by_steps(mix, {"fused": stream}, targets, 0, 0))


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("reader", ["s2vt", "mean"])
def test_deep_forward_equals_repeated_steps(gate, reader):
    deep = DeepLanguage(make_head(reader), make_model(), DeepLanguageConfig(model="-", gate=gate)).eval()
    assert isinstance(deep, Head) and isinstance(deep, Stepper)
    stream, targets = make_batch()
    rows = deep(stream, targets).log_probs()
    torch.testing.assert_close(rows[:3], by_steps(deep, stream, targets, 0, 0))
    torch.testing.assert_close(rows[3:9], by_steps(deep, stream, targets, 0, 1))


def test_a_shut_gate_leaves_the_decoder():
    head = make_head()
    deep = DeepLanguage(head, make_model(), DeepLanguageConfig(model="-", gate=True)).eval()
    with torch.no_grad():
        deep.gate.weight.zero_()
        deep.gate.bias.fill_(-1e4)
    stream, targets = make_batch()
    torch.testing.assert_close(deep(stream, targets).logits, head(stream, targets).logits)


def test_the_language_model_does_not_move():
    stream, targets = make_batch()
    deep = DeepLanguage(make_head(), make_model(dropout=0.5), DeepLanguageConfig(model="-", gate=True)).train()
    late = late_mix(make_head(), make_model(dropout=0.5), MixConfig(weights=TunedWeights())).train()
    for module, given, model in ((deep, stream, deep.model), (late, {"fused": stream}, late.members["language"].model)):
        assert not model.training and not any(p.requires_grad for p in model.parameters())
        before = [p.clone() for p in model.parameters()]
        optimiser = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=1.0)
        module.loss(module(given, targets), targets).backward()
        optimiser.step()
        assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    moved = {name for name, p in deep.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"join.weight", "gate.weight", "captioner.output.weight", "captioner.speaker.weight_hh_l0"} <= moved


def test_a_frozen_captioner_learns_only_what_joins():
    config = DeepLanguageConfig(model="-", gate=True, freeze_captioner=True)
    deep = DeepLanguage(make_head(), make_model(), config)
    train_only_joins(deep)
    assert {name for name, p in deep.named_parameters() if p.requires_grad} == {
        "join.weight", "gate.weight", "gate.bias",
    }  # fmt: skip


def test_late_training_is_that_of_the_captioner_alone():
    stream, targets = make_batch()
    mix = late_mix(make_head(), make_model(), MixConfig(weights=TunedWeights()))
    alone = make_head()
    torch.testing.assert_close(
        mix.loss(mix({"fused": stream}, targets), targets), alone.loss(alone(stream, targets), targets)
    )


def test_late_weight_is_tuned_between_the_two():
    stream, targets = make_batch()
    mix = late_mix(make_head(), make_model(), MixConfig(weights=TunedWeights()))
    with torch.inference_mode():
        chosen = mix.tune([(mix({"fused": stream}, targets), targets)])
    losses = []
    for share in torch.linspace(0, 1, 21):
        mix.set_weights(torch.tensor([1 - share, share]))
        losses.append(float(mix._mixture_loss(mix({"fused": stream}, targets), targets)))
    assert float(chosen[1]) == pytest.approx(int(torch.tensor(losses).argmin()) / 20, abs=1e-6)


@pytest.mark.parametrize("kind", ["plain", "deep", "late"])
def test_captions_of_a_batch_equal_captions_one_by_one(kind):
    stream, _ = make_batch()
    head, model = make_head(), make_model(3.0)
    if kind == "late":
        stepper, give = late_mix(head, model, MixConfig()), lambda s: {"fused": s}
    else:
        deep = DeepLanguage(head, model, DeepLanguageConfig(model="-")).eval()
        stepper, give = (head if kind == "plain" else deep), lambda s: s
    how = BeamConfig(beam_size=3, max_words=6)
    together = search(stepper, give(stream), how)
    for row in range(3):
        one = Stream(stream.data[row : row + 1], stream.mask[row : row + 1], stream.rate)
        (alone,) = search(stepper, give(one), how)
        assert [h.words for h in alone] == [h.words for h in together[row]]


def test_frozen_vectors_stay_under_training_with_weight_decay(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("w7 1 2 3 4 5\nw9 5 4 3 2 1\n")
    words = ("<pad>", "<bos>", "<eos>", "<unk>", *(f"w{number}" for number in range(4, WORDS)))
    head = make_head().train()
    embed(head.embedding, VectorsConfig(path=str(path), use="frozen"), words)
    stream, targets = make_batch()
    before = head.embedding.weight.detach().clone()
    optimiser = torch.optim.AdamW(head.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        head.loss(head(stream, targets), targets).backward()
        optimiser.step()
    head(stream, targets)
    assert head.embedding.weight[7].tolist() == [1, 2, 3, 4, 5] and head.embedding.weight[9].tolist() == [5, 4, 3, 2, 1]
    assert not torch.equal(head.embedding.weight[4], before[4])
