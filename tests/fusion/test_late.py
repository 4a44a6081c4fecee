"""Mixing the decisions of whole heads: labels, seconds and words; missing modalities; training and tuning."""

from __future__ import annotations

import pytest
import torch
from fusion_cases import clip_of, make_streams, without_clip

from mmfusion.fusion.late import FixedWeights, LearnedWeights, Mix, MixConfig, MixedOutput, TunedWeights
from mmfusion.heads.caption import CaptionConfig, CaptionHead
from mmfusion.heads.labels import LabelHead, LabelsConfig
from mmfusion.types import InputError, Output, Stepper, Targets

WIDTHS = {"audio": 5, "video": 7}
RULES = {
    "linear": MixConfig(),
    "loglinear": MixConfig(rule="loglinear"),
    "product": MixConfig(rule="loglinear", normalize=False),
}
KINDS = ("multi", "single", "caption")
every_rule = pytest.mark.parametrize("config", RULES.values(), ids=RULES.keys())
every_kind = pytest.mark.parametrize("kind", KINDS)


def head_of(kind: str, width: int) -> LabelHead | CaptionHead:
    if kind == "caption":
        return CaptionHead(CaptionConfig(embedding=6, hidden=8), width, 11)
    return LabelHead(LabelsConfig(target=kind, per_second=kind == "multi"), width, 4)


def mix_of(kind: str, config: MixConfig | None = None, names=("audio", "video"), seed: int = 0) -> Mix:
    torch.manual_seed(seed)
    heads = {name: head_of(kind, width) for name, width in WIDTHS.items()}
    for head in heads.values():  # confident and different heads
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter)
    return Mix({name: heads[name] for name in names}, config)


def targets_of(num_clips: int = 3) -> Targets:
    labels = torch.eye(4)[torch.arange(num_clips) % 4]
    words = torch.zeros(num_clips, 2, 6, dtype=torch.int64)
    words[:, 0] = torch.tensor([1, 5, 6, 7, 2, 0])
    words[:, 1] = torch.tensor([1, 9, 2, 0, 0, 0])
    words[-1, 1] = 0
    return Targets(labels=labels, words=words, word_mask=words != 0)


def clip_targets(targets: Targets, clip: int) -> Targets:
    return Targets(**{name: None if v is None else v[clip : clip + 1] for name, v in vars(targets).items()})


def streams_of(absent: dict[str, int] | None = None):
    streams = make_streams(widths=WIDTHS) | make_streams(rate=2.0, num_steps=3, seed=1, widths={"video": 7})
    for name, clip in (absent or {}).items():
        streams[name] = without_clip(streams[name], clip)
    return streams


@every_kind
@every_rule
def test_one_member_is_that_member(kind, config):
    mix, streams, targets = mix_of(kind, config, ("audio",)), streams_of(), targets_of()
    output, member = mix(streams, targets), mix.members["audio"](streams["audio"], targets)
    assert torch.equal(output.logits, member.logits) and type(output) is Output
    assert torch.equal(mix.loss(output, targets), mix.members["audio"].loss(member, targets))
    assert not [name for name, _ in mix.named_parameters() if not name.startswith("members.")]


@every_rule
def test_one_speaking_member_is_that_member(config):
    mix, streams = mix_of("caption", config, ("video",)), streams_of()
    words = torch.tensor([1, 1, 1])
    mixed, _ = mix.step(words, mix.start(streams))
    alone, _ = mix.members["video"].step(words, mix.members["video"].start(streams["video"]))
    assert torch.equal(mixed, alone)


@every_kind
@every_rule
def test_a_missing_modality_is_as_if_it_were_not_in_the_model(kind, config):
    streams, targets = streams_of({"video": 1}), targets_of()
    both, audio = mix_of(kind, config), mix_of(kind, config, ("audio",))
    one = {name: clip_of(stream, 1) for name, stream in streams.items()}
    known = clip_targets(targets, 1)
    mixed, alone = both(one, known), audio(one, known)
    torch.testing.assert_close(mixed.log_probs(), alone.log_probs(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both.loss(mixed, known), audio.loss(alone, known))
    if mixed.steps is not None:
        mask = mixed.steps.mask.repeat_interleave(2, 1)
        means = alone.steps.data.reshape(1, 3, 2, 4).mean(2)
        assert mask.all()
        torch.testing.assert_close(mixed.steps.data, means, rtol=1e-4, atol=1e-4)


@every_kind
@every_rule
def test_batch_of_three_is_three_batches_of_one(kind, config):
    streams, targets = streams_of({"video": 1, "audio": 2}), targets_of()
    mix = mix_of(kind, config)
    together = mix(streams, targets)
    alone = [
        mix({n: clip_of(s, clip) for n, s in streams.items()}, clip_targets(targets, clip)).logits for clip in range(3)
    ]
    torch.testing.assert_close(together.logits, torch.cat(alone), rtol=1e-4, atol=1e-4)


@every_kind
@every_rule
def test_nothing_at_all_is_still_a_decision(kind, config):
    streams = streams_of({"video": 1, "audio": 1})
    mix, targets = mix_of(kind, config), targets_of()
    output = mix(streams, targets)
    loss = mix.loss(output, targets)
    assert torch.isfinite(output.logits).all() and torch.isfinite(loss)


def test_labels_are_mixed_as_probabilities():
    mix, streams, targets = (
        mix_of("multi", MixConfig(weights=FixedWeights(values={"video": 3.0, "audio": 1.0}))),
        streams_of(),
        targets_of(),
    )
    output = mix(streams, targets)
    assert isinstance(output, MixedOutput) and list(output.parts) == ["audio", "video"]
    expected = 0.25 * output.parts["audio"].log_probs().exp() + 0.75 * output.parts["video"].log_probs().exp()
    torch.testing.assert_close(output.log_probs().exp(), expected)
    assert output.steps is not None and output.steps.rate == 2.0 and output.steps.data.shape == (3, 3, 4)


@every_rule
def test_words_forced_are_words_said(config):
    """The distributions under teacher forcing are those of `step` after the same words, clip by clip."""
    streams, targets = streams_of({"video": 1, "audio": 2}), targets_of()
    mix = mix_of("caption", config).eval()
    assert mix.speaks and isinstance(mix, Stepper) and not mix_of("multi").speaks
    forced = mix(streams, targets).log_probs()
    state, rows = mix.start(streams), []
    for word in targets.words[:, 0, :-1].T:
        log_probs, state = mix.step(word, state)
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(3))
        rows.append(log_probs)
    said = torch.stack(rows, dim=1)
    owner = targets.word_mask[..., 1:].nonzero()
    first = owner[:, 1] == 0
    torch.testing.assert_close(forced[first], said[owner[first, 0], owner[first, 2]], rtol=1e-4, atol=1e-4)


def test_rows_of_a_state_may_be_reordered():
    streams, mix = streams_of({"video": 1}), mix_of("caption")
    words, order = torch.tensor([1, 5, 6]), torch.tensor([2, 1, 1, 0])

    def take(state):
        if isinstance(state, dict):
            return {name: take(value) for name, value in state.items()}
        return tuple(take(value) for value in state) if isinstance(state, tuple) else state[order]

    plain, _ = mix.step(words, mix.start(streams))
    turned, _ = mix.step(words[order], take(mix.start(streams)))
    torch.testing.assert_close(turned, plain[order])


@every_kind
def test_parts_learn_from_their_own_losses_only(kind):
    mix, streams, targets = mix_of(kind), streams_of({"video": 1}), targets_of()
    output = mix(streams, targets)
    assert not output.logits.requires_grad
    audio = mix.members["audio"].loss(output.parts["audio"], targets)
    has_video = [clip for clip in range(3) if clip != 1]
    there = Targets(**{n: None if v is None else v[has_video] for n, v in vars(targets).items()})
    seen = {name: type(s)(s.data[has_video], s.mask[has_video], s.rate) for name, s in streams.items()}
    video = mix.members["video"].loss(mix.members["video"](seen["video"], there), there)
    torch.testing.assert_close(mix.loss(output, targets), audio + video)
    mix.loss(output, targets).backward()
    assert all(parameter.grad is not None for parameter in mix.parameters())


@every_kind
@pytest.mark.parametrize("rule", ["linear", "loglinear"])
@pytest.mark.parametrize("train", ["parts", "joint"])
def test_all_of_it_learns(kind, rule, train):
    config = MixConfig(rule=rule, train=train, weights=LearnedWeights())
    mix, streams, targets = mix_of(kind, config), streams_of(), targets_of()
    mix.loss(mix(streams, targets), targets).backward()
    assert mix.log_weights.grad.any()
    for name, parameter in mix.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@every_kind
def test_by_parts_learned_weights_leave_the_members_alone(kind):
    targets, streams = targets_of(), streams_of()
    grads = []
    for weights in (FixedWeights(), LearnedWeights()):
        mix = mix_of(kind, MixConfig(weights=weights))
        mix.loss(mix(streams, targets), targets).backward()
        grads.append({name: p.grad for name, p in mix.named_parameters() if name.startswith("members.")})
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


@every_kind
def test_joint_training_is_the_loss_of_the_mixture(kind):
    mix, streams, targets = mix_of(kind, MixConfig(train="joint")), streams_of(), targets_of()
    output = mix(streams, targets)
    torch.testing.assert_close(mix.loss(output, targets), mix.members["audio"].loss(output, targets))


@every_kind
@pytest.mark.parametrize("normalize", [True, False])
def test_weights_are_tuned_toward_the_better_member_and_kept(kind, normalize):
    config = MixConfig(rule="loglinear", normalize=normalize, weights=TunedWeights())
    mix, targets = mix_of(kind, config).eval(), targets_of()
    assert mix.tunable
    with torch.inference_mode():
        batches = [(mix(streams, targets), targets) for streams in (streams_of(), streams_of({"video": 2}))]

    def mean_loss(weights: torch.Tensor) -> float:
        rows = [len(output.logits) for output, _ in batches]
        losses = [mix.members["audio"].loss(mix.remix(o, t, weights), t) for o, t in batches]
        return float(sum(n * loss for n, loss in zip(rows, losses, strict=True)) / sum(rows))

    before = mix.weights.clone()
    chosen = mix.tune(batches)
    assert torch.equal(chosen, mix.weights) and mean_loss(chosen) < mean_loss(before)
    if normalize:
        line = [mean_loss(torch.tensor([share, 1 - share])) for share in torch.linspace(0, 1, 21)]
        assert mean_loss(chosen) == pytest.approx(min(line), abs=1e-5)
    other = mix_of(kind, config)
    other.load_state_dict(mix.state_dict())
    assert torch.equal(other.mixing_weights, chosen)


def test_weights_may_be_set():
    mix = mix_of("multi")
    mix.set_weights({"video": 3, "audio": 1})
    torch.testing.assert_close(mix.mixing_weights, torch.tensor([0.25, 0.75]))
    learned = mix_of("multi", MixConfig(weights=LearnedWeights()))
    torch.testing.assert_close(learned.mixing_weights, torch.tensor([0.5, 0.5]))
    learned.set_weights(torch.tensor([0.2, 0.8]))
    torch.testing.assert_close(learned.mixing_weights, torch.tensor([0.2, 0.8]))
    product = mix_of("multi", RULES["product"])
    torch.testing.assert_close(product.mixing_weights, torch.ones(2))
    for wrong in (torch.tensor([1.0]), torch.tensor([-1.0, 2.0]), torch.zeros(2)):
        with pytest.raises(ValueError, match="weights must be 2 numbers"):
            mix.set_weights(wrong)
    with pytest.raises(ValueError, match="kind tuned"):
        mix.tune([])
    with pytest.raises(InputError, match="must name audio, video"):
        mix_of("multi", MixConfig(weights=FixedWeights(values={"audio": 1.0})))
