"""Label head: masks, pooling, losses against their definitions, per-second learning."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from mmfusion.config import validate
from mmfusion.heads.labels import LabelHead, LabelsConfig, TimePooling
from mmfusion.types import Head, InputError, Output, Stream, Targets

POOLINGS = ["mean", "max", "attention", "statistics"]
WIDTH, CLASSES = 6, 4


def make_stream(lengths=(5, 3, 0), num_steps=5, rate=2.0, seed=0):
    data = torch.randn(len(lengths), num_steps, WIDTH, generator=torch.Generator().manual_seed(seed))
    return Stream(data, torch.arange(num_steps) < torch.tensor(lengths)[:, None], rate)


def make_targets(seed=1, **more):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (3, CLASSES), generator=generator).float()
    return Targets(labels=labels, label_mask=torch.ones(3, CLASSES, dtype=torch.bool), **more)


def make_head(**settings):
    torch.manual_seed(0)
    return LabelHead(LabelsConfig(**settings), WIDTH, CLASSES).eval()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("per_class", [False, True])
def test_what_lies_under_a_false_mask_changes_nothing(pooling, per_class):
    steps = pooling != "statistics"
    head, stream = make_head(pooling=pooling, hidden=5, per_second=steps, per_class=per_class), make_stream()
    filled = stream.with_data(torch.where(stream.mask[..., None], stream.data, torch.nan))
    longer = Stream(torch.cat([filled.data, filled.data], 1), torch.cat([stream.mask, stream.mask & False], 1), 2.0)
    expected = head(stream, Targets())
    for other in (filled, longer):
        got = head(other, Targets())
        torch.testing.assert_close(got.logits, expected.logits)
        if steps:
            torch.testing.assert_close(got.steps.data[:, :5][stream.mask], expected.steps.data[stream.mask])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_batch_equals_its_clips_one_by_one(pooling):
    head, stream = make_head(pooling=pooling), make_stream()
    together = head(stream, Targets()).logits
    alone = [head(Stream(stream.data[i : i + 1], stream.mask[i : i + 1], 2.0), Targets()).logits for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert together.isfinite().all()


def test_pooling_by_its_definitions():
    stream = make_stream()
    torch.testing.assert_close(TimePooling("mean", WIDTH)(stream)[1], stream.data[1, :3].mean(0))
    torch.testing.assert_close(TimePooling("max", WIDTH)(stream)[1], stream.data[1, :3].amax(0))
    attention = TimePooling("attention", WIDTH)
    weights = attention.score(stream.data[1, :3]).softmax(0)
    torch.testing.assert_close(attention(stream)[1], (weights * stream.data[1, :3]).sum(0))
    mean, deviation = TimePooling("statistics", WIDTH)(stream)[1].split(WIDTH)
    torch.testing.assert_close(mean, stream.data[1, :3].mean(0))
    torch.testing.assert_close(deviation, stream.data[1, :3].std(0, correction=0), atol=1e-4, rtol=1e-3)
    for pooling in POOLINGS:
        assert TimePooling(pooling, WIDTH)(stream)[2].abs().sum() == 0


def test_steps_that_are_all_alike_can_be_learnt_from():
    stream = Stream(torch.ones(1, 3, WIDTH, requires_grad=True), torch.ones(1, 3, dtype=torch.bool), 2.0)
    make_head(pooling="statistics")(stream, Targets()).logits.sum().backward()
    assert stream.data.grad.isfinite().all()


def test_multi_label_loss_is_the_mean_over_known_cells():
    head, targets = make_head(), make_targets()
    output = head(make_stream(), targets)
    every = binary_cross_entropy_with_logits(output.logits, targets.labels)
    torch.testing.assert_close(head.loss(output, targets), every)
    mask = targets.label_mask.clone()
    mask[1] = False
    mask[0, 2] = False
    unknown = targets.labels.masked_fill(~mask, torch.nan)
    some = binary_cross_entropy_with_logits(output.logits[mask], targets.labels[mask])
    torch.testing.assert_close(head.loss(output, Targets(labels=unknown, label_mask=mask)), some)


@pytest.mark.parametrize("target", ["multi", "single", "relevance"])
def test_nothing_known_is_a_zero_loss_that_can_be_differentiated(target):
    head = make_head(target=target)
    for targets in (Targets(), Targets(labels=torch.ones(3, CLASSES), label_mask=torch.zeros(3, CLASSES).bool())):
        loss = head.loss(head(make_stream(), targets), targets)
        loss.backward()
        assert loss == 0
        assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)


def test_single_label_loss_leaves_out_unlabelled_clips():
    head = make_head(target="single", class_weights=(1.0, 2.0, 3.0, 4.0))
    labels = torch.tensor([[0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]).float()
    targets = Targets(labels=labels, label_mask=torch.ones(3, CLASSES, dtype=torch.bool))
    output = head(make_stream(), targets)
    expected = cross_entropy(output.logits[[0, 2]], torch.tensor([2, 1]), torch.tensor([1.0, 2, 3, 4]))
    assert output.family == "categorical"
    torch.testing.assert_close(head.loss(output, targets), expected)


def test_relevance_loss_is_the_squared_error_over_known_cells():
    head = make_head(target="relevance")
    generator = torch.Generator().manual_seed(4)
    mask = torch.rand(3, CLASSES, generator=generator) < 0.5
    relevances = torch.rand(3, CLASSES, generator=generator)
    output = head(make_stream(), Targets())
    expected = (output.logits.sigmoid() - relevances)[mask].square().mean()
    for fill in (0.5, torch.nan, 7.0):  # whatever stands in a cell that nobody rated
        given = Targets(labels=relevances.masked_fill(~mask, fill), label_mask=mask)
        torch.testing.assert_close(head.loss(output, given), expected)
    assert output.family == "bernoulli"
    with pytest.raises(InputError, match="label_smoothing"):
        validate(LabelsConfig, {"target": "relevance", "label_smoothing": 0.1}, "x.yaml")


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_mixed_clips_are_learnt_as_shares(smoothing):
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    head = make_head(target="single", label_smoothing=smoothing, class_weights=tuple(weights.tolist()))
    shares = torch.tensor([[0.3, 0.7, 0, 0], [0, 0, 1, 0], [0.5, 0, 0, 0.5]])
    output = head(make_stream(), Targets())
    mixed = head.loss(output, Targets(labels=shares))
    by_hand = cross_entropy(output.logits, shares, weights, label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(mixed, by_hand / (shares @ weights).sum())
    # One class a clip: the loss of plain indices.
    plain = Targets(labels=torch.eye(CLASSES)[[2, 0, 3]])
    expected = cross_entropy(output.logits, torch.tensor([2, 0, 3]), weights, label_smoothing=smoothing)
    torch.testing.assert_close(head.loss(output, plain), expected)


def test_per_class_networks_see_nothing_of_one_another():
    torch.manual_seed(0)
    head = LabelHead(LabelsConfig(hidden=5, per_class=True), WIDTH, CLASSES)
    stream = make_stream((5, 3, 4))
    logits = head(stream).logits
    assert logits.shape == (3, CLASSES)
    logits[:, 2].sum().backward()
    for parameter in head.classify.parameters():
        assert parameter.shape[0] == CLASSES
        assert parameter.grad[2].any() and not parameter.grad[[0, 1, 3]].any()
    # One product for all classes equals a loop over them.
    first, last = head.classify[2], head.classify[5]
    pooled = head.pool(stream)
    for label in range(CLASSES):
        hidden = (pooled @ first.weight[label] + first.bias[label]).relu()
        torch.testing.assert_close(logits[:, label], (hidden @ last.weight[label] + last.bias[label])[:, 0])
    assert head(stream).logits.shape == LabelHead(LabelsConfig(), WIDTH, CLASSES)(stream).logits.shape
    with pytest.raises(InputError, match="per_class needs hidden"):
        validate(LabelsConfig, {"per_class": True}, "x.yaml")


def test_class_weights_weigh_cells_and_must_fit():
    head, targets = make_head(class_weights=(0.0, 0.0, 2.0, 0.0)), make_targets()
    output = head(make_stream(), targets)
    only = binary_cross_entropy_with_logits(output.logits[:, 2], targets.labels[:, 2])
    torch.testing.assert_close(head.loss(output, targets), only)
    with pytest.raises(InputError, match="class_weights has 2 entries, the data has 4"):
        make_head(class_weights=(1.0, 2.0))


def test_label_smoothing_moves_the_best_logit_inward():
    head = make_head(label_smoothing=0.2)
    targets = Targets(labels=torch.ones(1, CLASSES))
    at_best = Output(torch.full((1, CLASSES), math.log(0.9 / 0.1), requires_grad=True), "bernoulli")
    (slope,) = torch.autograd.grad(head.loss(at_best, targets), at_best.logits)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-6, rtol=0)


def test_per_second_is_refused_with_statistics():
    with pytest.raises(InputError, match=r"per_second classifies steps, which have no deviation"):
        validate(LabelsConfig, {"per_second": True, "pooling": "statistics"}, "head")


def test_per_second_loss_averages_the_steps_of_a_second():
    head = make_head(per_second=True)
    activity = torch.rand(3, 3, CLASSES).round()
    activity[0, 1, 0] = torch.nan
    targets = Targets(activity=activity)
    stream = make_stream(rate=2.0)
    output = head(stream, targets)
    # Clip 0: seconds 0, 1 whole, 2 half (five steps of half a second); clip 1: second 0 and half of 1; clip 2: none.
    logits = output.steps.data
    cells = [(logits[0, :2].mean(0), activity[0, 0]), (logits[0, 2:4].mean(0)[1:], activity[0, 1, 1:])]
    cells += [(logits[0, 4], activity[0, 2]), (logits[1, :2].mean(0), activity[1, 0]), (logits[1, 2], activity[1, 1])]
    given, truth = (torch.cat([cell[i] for cell in cells]) for i in (0, 1))
    torch.testing.assert_close(head.loss(output, targets), binary_cross_entropy_with_logits(given, truth))
    # Clips without labels are known second by second all the same.
    unlabelled = Targets(activity=activity, labels=torch.zeros(3, CLASSES), label_mask=torch.zeros(3, CLASSES).bool())
    torch.testing.assert_close(head.loss(output, unlabelled), binary_cross_entropy_with_logits(given, truth))


def test_steps_longer_than_a_second_count_in_every_second_that_they_cover():
    head = make_head(per_second=True)
    activity = torch.rand(3, 5, CLASSES).round()
    stream = make_stream(lengths=(2, 1, 0), num_steps=2, rate=0.4)
    output = head(stream, Targets(activity=activity))
    first, second = output.steps.data[0]
    by_second = torch.stack([first, first, (first + second) / 2, second, second])
    third = output.steps.data[1, :1].expand(3, -1)
    expected = binary_cross_entropy_with_logits(
        torch.cat([by_second, third]), torch.cat([activity[0], activity[1, :3]])
    )
    torch.testing.assert_close(head.loss(output, Targets(activity=activity)), expected)


def test_a_step_that_reaches_into_two_seconds_counts_by_its_share():
    head = make_head(per_second=True)
    activity = torch.rand(1, 2, CLASSES).round()
    output = head(make_stream(lengths=(3,), num_steps=3, rate=1.5), Targets(activity=activity))
    first, second, third = output.steps.data[0]
    by_second = torch.stack([(2 * first + second) / 3, (second + 2 * third) / 3])
    expected = binary_cross_entropy_with_logits(by_second, activity[0])
    torch.testing.assert_close(head.loss(output, Targets(activity=activity)), expected)


def test_activity_weight_and_the_clip_loss_add_up():
    activity = torch.rand(3, 3, CLASSES).round()
    both, clip_only = make_head(per_second=True, activity_weight=0.5), make_head()
    targets = make_targets(activity=activity)
    output = both(make_stream(), targets)
    per_second = both.loss(output, Targets(activity=activity))
    expected = clip_only.loss(output, Targets(labels=targets.labels)) + per_second
    torch.testing.assert_close(both.loss(output, targets), expected)


def test_it_is_a_head_and_its_loss_is_float32_under_autocast():
    head = make_head(pooling="attention", hidden=8)
    assert isinstance(head, Head)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head.loss(head(make_stream(), make_targets()), make_targets())
    assert loss.dtype == torch.float32 and loss.isfinite()


def test_four_clips_can_be_over_fitted():
    torch.manual_seed(0)
    head = LabelHead(LabelsConfig(pooling="attention", hidden=16), WIDTH, CLASSES)
    stream, targets = make_stream((5, 3, 4), seed=3), make_targets()
    optimizer = torch.optim.Adam(head.parameters(), 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        loss = head.loss(head(stream, targets), targets)
        loss.backward()
        optimizer.step()
    assert loss < 0.02


def test_settings_are_checked():
    tree = {"pooling": "attention", "class_weights": [1.0, 2.0]}
    assert validate(LabelsConfig, tree, "x.yaml").class_weights == (1.0, 2.0)
    with pytest.raises(InputError, match="dropout"):
        validate(LabelsConfig, {"dropout": 1.5}, "x.yaml")
