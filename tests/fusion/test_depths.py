"""Early, deep and late as modules over streams: what comes out, and what may not change it."""

from __future__ import annotations

import pytest
import torch
from fusion_cases import JOINS, WIDTHS, clip_of, make_streams, padded, with_garbage, without_clip
from torch import nn

from mmfusion.config import validate
from mmfusion.fusion.build import FusionConfig, NoFusionConfig, build_fusion
from mmfusion.fusion.deep import DeepConfig
from mmfusion.fusion.early import EarlyConfig
from mmfusion.fusion.late import LateConfig, MixConfig
from mmfusion.fusion.pointwise import GatedConfig
from mmfusion.types import InputError, Stream


class Reader(nn.Module):
    """A recurrent network of one line: the running sum of a linear map of what is real."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = 4
        self.layer = nn.Linear(width, 4)

    def forward(self, stream: Stream) -> Stream:
        summed = (self.layer(stream.zeroed()) * stream.mask[..., None]).cumsum(1)
        return stream.with_data(stream.with_data(summed).zeroed())


DEPTHS = {f"early-{name}": EarlyConfig(join=join) for name, join in JOINS.items()}
DEPTHS |= {f"deep-{name}": DeepConfig(join=join) for name, join in JOINS.items()}
every_depth = pytest.mark.parametrize("config", DEPTHS.values(), ids=DEPTHS.keys())


def two_rates(seed: int = 0) -> dict[str, Stream]:
    """Audio at 10 steps a second, video at 4, flow at 4 and shorter; clip 1 has no video, clip 2 no flow."""
    streams = make_streams(num_steps=8, seed=seed) | make_streams(num_steps=20, rate=10.0, widths={"audio": 5})
    streams["flow"] = Stream(streams["flow"].data[:, :5], streams["flow"].mask[:, :5], 4.0)
    return streams | {"video": without_clip(streams["video"], 1), "flow": without_clip(streams["flow"], 2)}


def fused(config, streams, seed: int = 0) -> Stream:
    torch.manual_seed(seed)
    fusion = build_fusion(config, {name: s.data.shape[-1] for name, s in streams.items()}, Reader).eval()
    result = fusion(streams)
    assert {name: stream.data.shape[-1] for name, stream in result.items()} == fusion.widths
    assert list(result) == ["fused"]
    return result["fused"]


@every_depth
def test_one_modality_fused_is_that_modality(config):
    stream = make_streams()["audio"]
    result = fused(config, {"audio": stream})
    if config.depth == "deep":
        assert torch.equal(result.data, stream.data)
    else:
        torch.manual_seed(0)
        assert torch.equal(result.data, Reader(5)(stream).data)
    assert torch.equal(result.mask, stream.mask)


@every_depth
def test_missing_modalities_padding_and_company(config):
    streams = two_rates()
    result = fused(config, streams)
    assert torch.isfinite(result.data).all() and result.rate == 4.0 and result.data.shape[1] == 8
    garbage = fused(config, {name: with_garbage(stream) for name, stream in streams.items()})
    assert torch.equal(garbage.data, result.data)
    long = fused(config, {name: padded(s, 5 if s.rate == 10 else 2) for name, s in streams.items()})
    torch.testing.assert_close(long.data[:, :8], result.data, rtol=1e-4, atol=1e-5)
    assert not long.mask[:, 8:].any()
    for clip in range(3):
        alone = fused(config, {name: clip_of(stream, clip) for name, stream in streams.items()})
        torch.testing.assert_close(alone.data[0], result.data[clip], rtol=1e-4, atol=1e-5)


@every_depth
def test_all_of_it_learns(config):
    torch.manual_seed(0)
    fusion = build_fusion(config, WIDTHS, Reader)
    streams = {name: s.with_data(s.data.requires_grad_()) for name, s in make_streams().items()}
    result = fusion(streams)["fused"]
    (result.data * torch.randn_like(result.data)).sum().backward()
    for name, leaf in [*fusion.named_parameters(), *((name, s.data) for name, s in streams.items())]:
        assert leaf.grad is not None and leaf.grad.any(), name


@pytest.mark.parametrize("depth", [EarlyConfig, DeepConfig])
def test_the_grid_may_be_asked_for(depth):
    assert fused(depth(rate=5.0), two_rates()).rate == 5.0


def test_early_fusion_may_do_without_a_recurrent_network():
    streams = make_streams()
    for make_recurrent in (None, lambda width: None):
        fusion = build_fusion(EarlyConfig(), WIDTHS, make_recurrent)
        assert fusion.widths == {"fused": 15} and fusion(streams)["fused"].data.shape == (3, 6, 15)


def test_late_and_single_pass_streams_on():
    streams = two_rates()
    late = build_fusion(LateConfig(), WIDTHS)
    assert all(late(streams)[name] is streams[name] for name in WIDTHS) and late.widths == WIDTHS
    alone = build_fusion(NoFusionConfig(), {"audio": 5})
    assert alone({"audio": streams["audio"]}) == {"audio": streams["audio"]} and alone.widths == {"audio": 5}
    with pytest.raises(InputError, match="exactly one encoder, there are audio, video, flow"):
        build_fusion(NoFusionConfig(), WIDTHS)
    with pytest.raises(InputError, match="no encoder"):
        build_fusion(DeepConfig(), {})


def test_depth_chooses_the_settings():
    read = validate(FusionConfig, {"depth": "early", "rate": 8, "join": {"kind": "gated", "size": 4}}, "x.yaml")
    assert read == EarlyConfig(rate=8.0, join=GatedConfig(size=4))
    read = validate(FusionConfig, {"depth": "late", "mix": {"rule": "loglinear", "normalize": False}}, "x.yaml")
    assert read == LateConfig(mix=MixConfig(rule="loglinear", normalize=False))
    with pytest.raises(InputError, match="join: unknown key"):
        validate(FusionConfig, {"depth": "late", "join": {"kind": "sum"}}, "x.yaml")
    with pytest.raises(InputError, match="product of posteriors"):
        validate(FusionConfig, {"depth": "late", "mix": {"normalize": False}}, "x.yaml")
