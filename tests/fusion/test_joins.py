"""Every join operator: what is missing leaves the rest alone, padding and company change nothing, all of it learns."""

from __future__ import annotations

import itertools

import pytest
import torch
from fusion_cases import JOINS, WIDTHS, clip_of, make_streams, masked, padded, with_garbage, without_clip
from torch import nn

from mmfusion.config import validate
from mmfusion.fusion.bottleneck import BottleneckConfig
from mmfusion.fusion.deep import DeepConfig
from mmfusion.fusion.join import build_join
from mmfusion.fusion.pointwise import FilmConfig, GatedConfig, LowRankConfig, SumConfig
from mmfusion.types import InputError, Stream

every_join = pytest.mark.parametrize("config", JOINS.values(), ids=JOINS.keys())


def holes(seed: int = 0) -> dict[str, Stream]:
    """Three streams with gaps; clip 0 complete, clip 1 without audio, clip 2 ragged."""
    streams = make_streams(seed=seed)
    streams["audio"] = without_clip(streams["audio"], 1)
    ragged = torch.ones(3, 6, dtype=torch.bool)
    ragged[2, 4:] = False
    for name in streams:
        streams[name] = masked(streams[name], ragged)
    gap = torch.ones(3, 6, dtype=torch.bool)
    gap[2, 1] = False
    streams["video"] = masked(streams["video"], gap)
    return streams


def joined(config, streams, seed: int = 0) -> Stream:
    torch.manual_seed(seed)
    join = build_join(config, {name: stream.data.shape[-1] for name, stream in streams.items()}).eval()
    result = join(streams)
    assert result.data.shape[-1] == join.width
    return result


@every_join
def test_one_stream_is_that_stream(config):
    stream = make_streams()["audio"]
    join = build_join(config, {"audio": 5}).train()
    result = join({"audio": stream})
    assert torch.equal(result.data, stream.data) and torch.equal(result.mask, stream.mask)
    assert join.width == 5 and not list(join.parameters())
    gappy = with_garbage(without_clip(stream, 0))
    assert torch.equal(join({"audio": gappy}).data, gappy.zeroed())


@every_join
def test_mask_is_the_union_and_nothing_lies_outside_it(config):
    streams = holes()
    result = joined(config, streams)
    union = torch.stack([stream.mask for stream in streams.values()]).any(0)
    assert torch.equal(result.mask, union) and not union.all()
    assert torch.equal(result.data, result.zeroed()) and torch.isfinite(result.data).all()
    assert result.data[result.mask].abs().sum(-1).gt(0).all()
    assert result.rate == 4.0


@every_join
def test_what_lies_under_the_masks_does_not_matter(config):
    streams = holes()
    garbage = {name: with_garbage(stream) for name, stream in streams.items()}
    assert torch.equal(joined(config, streams).data, joined(config, garbage).data)


@every_join
def test_padding_changes_nothing(config):
    streams = holes()
    long = joined(config, {name: padded(stream, 4) for name, stream in streams.items()})
    plain = joined(config, streams)
    torch.testing.assert_close(long.data[:, :6], plain.data, rtol=1e-4, atol=1e-5)
    assert not long.data[:, 6:].any()


@every_join
def test_batch_of_three_is_three_batches_of_one(config):
    streams = holes()
    together = joined(config, streams).data
    for clip in range(3):
        alone = joined(config, {name: clip_of(stream, clip) for name, stream in streams.items()}).data
        torch.testing.assert_close(alone[0], together[clip], rtol=1e-4, atol=1e-5)


@every_join
def test_streams_are_told_apart_by_name(config):
    streams = holes()
    turned = dict(reversed(streams.items()))
    torch.manual_seed(0)
    join = build_join(config, WIDTHS).eval()
    assert torch.equal(join(streams).data, join(turned).data)


@every_join
def test_every_parameter_and_every_stream_gets_a_gradient(config):
    torch.manual_seed(0)
    streams = {name: s.with_data(s.data.requires_grad_()) for name, s in make_streams().items()}
    join = build_join(config, WIDTHS)
    (join(streams).data * torch.randn(3, 6, join.width)).sum().backward()
    for name, leaf in [*join.named_parameters(), *((n, s.data) for n, s in streams.items())]:
        assert leaf.grad is not None and torch.isfinite(leaf.grad).all() and leaf.grad.any(), name


@every_join
def test_gradients_are_finite_whatever_is_missing(config):
    streams = {name: without_clip(stream, 2) for name, stream in holes().items()}
    streams["flow"] = masked(streams["flow"], torch.zeros(3, 6, dtype=torch.bool))
    streams = {name: s.with_data(s.data.requires_grad_()) for name, s in streams.items()}
    join = build_join(config, WIDTHS)
    join(streams).data.square().sum().backward()
    for leaf in (*join.parameters(), *(s.data for s in streams.values())):
        assert leaf.grad is None or torch.isfinite(leaf.grad).all()
    flow = streams["flow"].data.grad
    assert flow is None or not flow.any()


@every_join
def test_works_under_autocast(config):
    join = build_join(config, WIDTHS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(join(holes()).data).all()


@every_join
def test_streams_that_are_not_aligned_are_refused(config):
    streams = make_streams()
    with pytest.raises(ValueError, match="aligned"):
        build_join(config, WIDTHS)(streams | {"video": padded(streams["video"], 1)})


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    join = build_join(SumConfig(size=8, dropout=0.5), WIDTHS)
    streams = make_streams()
    assert (join(streams).data == 0).float().mean() > 0.2
    assert torch.equal(join.eval()(streams).data, join(streams).data)


def test_concat_is_concatenation():
    streams = make_streams()
    assert torch.equal(joined(JOINS["concat"], streams).data, torch.cat([s.data for s in streams.values()], -1))


def test_order_of_streams_does_not_change_the_sum():
    streams, widths = holes(), WIDTHS
    reference = build_join(SumConfig(size=8), widths)
    for order in itertools.permutations(widths):
        other = build_join(SumConfig(size=8), {name: widths[name] for name in order})
        other.load_state_dict(reference.state_dict())
        torch.testing.assert_close(other(streams).data, reference(streams).data)


@pytest.mark.parametrize(
    "config", [SumConfig(size=8), GatedConfig(size=8), LowRankConfig(size=8)], ids=lambda c: c.kind
)
def test_without_a_stream_the_rest_is_joined_by_the_same_weights(config):
    streams = make_streams()
    absent = streams | {"flow": masked(streams["flow"], torch.zeros(3, 6, dtype=torch.bool))}
    join, smaller = build_join(config, WIDTHS), build_join(config, {"audio": 5, "video": 7})
    weights = {name: value for name, value in join.state_dict().items() if ".flow." not in name}
    if config.kind == "gated":
        weights["gates.weight"], weights["gates.bias"] = weights["gates.weight"][:16, :12], weights["gates.bias"][:16]
    smaller.load_state_dict(weights)
    both = {name: streams[name] for name in ("audio", "video")}
    torch.testing.assert_close(join(absent).data, smaller(both).data)


@pytest.mark.parametrize("output", ["concat", "mean"])
def test_without_a_stream_the_bottleneck_is_that_of_the_rest(output):
    streams = make_streams()
    absent = streams | {"flow": without_clip(without_clip(streams["flow"], 0), 2)}
    config = BottleneckConfig(size=8, heads=2, layers=3, output=output)
    join, smaller = build_join(config, WIDTHS), build_join(config, {"audio": 5, "video": 7})
    smaller.load_state_dict({name: value for name, value in join.state_dict().items() if ".flow." not in name})
    result, rest = join(absent).data, smaller(streams).data
    torch.testing.assert_close(result[[0, 2], :, : rest.shape[-1]], rest[[0, 2]])
    assert not result[[0, 2], :, rest.shape[-1] :].any()
    assert (result[1, :, : rest.shape[-1]] - rest[1]).abs().max() > 1e-3


def test_two_gates_are_the_published_pair():
    widths = {"audio": 5, "video": 7}
    streams = make_streams(widths=widths)
    join = build_join(GatedConfig(size=8), widths)
    audio, video = (torch.tanh(join.projections[name](streams[name].data)) for name in widths)
    scores = join.gates(torch.cat([streams[name].data for name in widths], -1))
    gate = torch.sigmoid(scores[..., :8] - scores[..., 8:])
    torch.testing.assert_close(join(streams).data, gate * audio + (1 - gate) * video)


def test_film_without_a_modulator_is_the_projection():
    streams = make_streams()
    nothing = torch.zeros(3, 6, dtype=torch.bool)
    absent = streams | {name: masked(streams[name], nothing) for name in ("audio", "flow")}
    join = build_join(FilmConfig(size=8, modulated="video"), WIDTHS)
    torch.testing.assert_close(join(absent).data, join.projection(streams["video"].data))
    assert build_join(FilmConfig(size=8), WIDTHS).projection.in_features == WIDTHS["audio"]
    with pytest.raises(InputError, match="no stream is called smell"):
        build_join(FilmConfig(size=8, modulated="smell"), WIDTHS)


def test_lowrank_is_the_factorised_outer_product():
    widths = {"audio": 5, "video": 7}
    streams = make_streams(1, 1, widths=widths)
    join = build_join(LowRankConfig(size=2, rank=3), widths)
    audio, video = (torch.cat([streams[name].data[0, 0], torch.ones(1)]) for name in widths)
    rows = {n: torch.cat([f.weight, f.bias[:, None]], 1).reshape(3, 2, -1) for n, f in join.factors.items()}
    tensor = torch.einsum("r,rda,rdv->dav", join.rank_weights, rows["audio"], rows["video"])
    expected = torch.einsum("dav,a,v->d", tensor, audio, video) + join.bias
    torch.testing.assert_close(join(streams).data[0, 0], expected)


@pytest.mark.parametrize("output", ["concat", "mean"])
def test_the_bottleneck_is_the_only_way_across(output):
    """What audio says at one step reaches every video step, through the shared tokens, and an absent stream none."""
    torch.manual_seed(0)
    join = build_join(BottleneckConfig(size=8, heads=2, output=output), WIDTHS).eval()
    streams = make_streams()
    other = streams | {"audio": streams["audio"].with_data(streams["audio"].data.clone())}
    other["audio"].data[:, 0] += 3
    before, after = join(streams).data, join(other).data
    assert (before[:, 5] - after[:, 5]).abs().max() > 1e-5
    with torch.no_grad():  # tokens that nobody can read carry nothing across
        for layer in join.layers:
            for name in WIDTHS:
                nn.init.zeros_(layer[name].queries_keys_values.weight)
    if output == "concat":
        torch.testing.assert_close(join(streams).data[..., 8:], join(other).data[..., 8:])


def test_settings_are_checked():
    tree = {"depth": "deep", "join": {"kind": "bottleneck", "size": 8, "heads": 2}}
    assert validate(DeepConfig, tree, "x.yaml").join == BottleneckConfig(size=8, heads=2)
    with pytest.raises(InputError, match="multiple of heads"):
        validate(DeepConfig, {"depth": "deep", "join": {"kind": "bottleneck", "size": 9, "heads": 2}}, "x.yaml")
    with pytest.raises(InputError, match=r"join.layers"):
        validate(DeepConfig, {"depth": "deep", "join": {"kind": "bottleneck", "layers": 1}}, "x.yaml")
    with pytest.raises(InputError, match=r"rnak: unknown key .did you mean rank"):
        validate(DeepConfig, {"depth": "deep", "join": {"kind": "lowrank", "rnak": 2}}, "x.yaml")
