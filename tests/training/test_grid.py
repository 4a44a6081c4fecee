"""Every encoder kind x depth x join trains, and a model can learn four clips by heart."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
import torch

from mmfusion.config import validate
from mmfusion.language.search import BeamConfig, search
from mmfusion.model import FusionModel, ModelConfig, build_model
from mmfusion.types import Batch, Facts, Stream, Targets

FACTS = Facts(("bell", "drum", "rain"), ("<pad>", "<bos>", "<eos>", "<unk>", "a", "bell", "rings", "drum"), {"flow": 6})
SOUND = {"kind": "spectrogram_cnn", "channels": [4, 8], "width": 8, "rate": 4}
PICTURE = {"kind": "frame_cnn", "channels": [4, 8], "width": 8}
FLOW = {"kind": "precomputed", "width": 8}
JOINS = ("concat", "sum", "gated", "film", "lowrank", "bottleneck")
RULES = [
    {"rule": "linear"}, {"rule": "linear", "weights": {"kind": "learned"}, "train": "joint"},
    {"rule": "loglinear", "normalize": False}, {"rule": "loglinear", "weights": {"kind": "learned"}, "train": "joint"},
    {"rule": "linear", "weights": {"kind": "tuned"}},
]  # fmt: skip
FUSIONS: list[dict[str, Any]] = [
    {"depth": depth, "join": {"kind": join} | ({"size": 8} if join != "concat" else {})}
    for depth, join in product(("early", "deep"), JOINS)
] + [{"depth": "late", "mix": rule} for rule in RULES]


def model_of(fusion: Mapping[str, Any], encoders: Mapping[str, Any] | None = None, **head: Any) -> FusionModel:
    torch.manual_seed(0)
    tree = {
        "encoders": dict(encoders or {"audio": SOUND, "video": PICTURE, "flow": FLOW}),
        "recurrent": {"size": 8},
        "fusion": dict(fusion),
        "heads": {
            "labels": {"kind": "labels", "per_second": True, **head},
            "caption": {"kind": "caption", "embedding": 8, "hidden": 16},
        },
    }
    return build_model(validate(ModelConfig, tree, "test"), FACTS)


def batch_of(num: int = 4, seed: int = 0, hidden: tuple[str, ...] = ()) -> Batch:
    """Clips of 1 or 2 seconds with sound, frames and flow; `hidden` inputs are missing from the first clip."""
    generator = torch.Generator().manual_seed(seed)
    seconds = torch.tensor([2 - number % 2 for number in range(num)])
    inputs = {}
    for name, shape, rate in (("audio", (), 8000), ("video", (3, 16, 16), 4), ("flow", (6,), 2)):
        mask = torch.arange(2 * rate)[None] < (seconds * rate)[:, None]
        data = torch.randn((num, 2 * rate, *shape), generator=generator)
        if name == "video":
            data = (data * 40 + 128).clamp(0, 255).to(torch.uint8)
        if name in hidden:
            mask[0] = False
        inputs[name] = Stream(data, mask, float(rate))
    words = torch.tensor([[1, 4, 5 + 2 * (n % 2), 6, 2] for n in range(num)])[:, None]
    labels = (torch.rand((num, 3), generator=generator) < 0.5).float()
    activity = labels[:, None].expand(-1, 2, -1)
    targets = Targets(labels, torch.ones(num, 3, dtype=torch.bool), activity, words, words > 0)
    return Batch(tuple(f"c{n}" for n in range(num)), inputs, targets)


def row(batch: Batch, number: int) -> Batch:
    """One clip of a batch, without the padding that the others brought."""
    inputs = {}
    for name, stream in batch.inputs.items():
        length = max(1, int(stream.lengths[number]))
        inputs[name] = Stream(
            stream.data[number : number + 1, :length], stream.mask[number : number + 1, :length], stream.rate
        )
    whole = batch.targets
    assert whole.words is not None and whole.word_mask is not None
    targets = Targets(words=whole.words[number : number + 1], word_mask=whole.word_mask[number : number + 1])
    return Batch((batch.ids[number],), inputs, targets)


@pytest.mark.parametrize("fusion", FUSIONS, ids=str)
def test_trains_two_steps(fusion: dict[str, Any]) -> None:
    model = model_of(fusion)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for step in range(2):
        batch = batch_of(seed=step, hidden=("audio",) if step else ())
        total, parts = model.loss(model(batch), batch.targets)
        assert set(parts) == {"labels.loss", "caption.loss"} and total.isfinite()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert all(moved), [name for (name, _), there in zip(model.named_parameters(), moved, strict=True) if not there]


@pytest.mark.parametrize("fusion", FUSIONS, ids=str)
def test_a_batch_is_its_clips_one_by_one(fusion: dict[str, Any]) -> None:
    """Padding, and the company of others, changes neither labels nor words nor sentences; nor does a missing stream."""
    model = model_of(fusion).eval()
    batch = batch_of(hidden=("video",))
    with torch.no_grad():
        fused = model.fusion(model.encode(batch))
        together = model.decide(fused, batch)
        sentences = search(model.steppers["caption"], fused, BeamConfig(beam_size=2, max_words=4))
        for number in range(4):
            single = row(batch, number)
            streams = model.fusion(model.encode(single))
            alone = model.decide(streams, single)
            torch.testing.assert_close(
                together["labels"].logits[number], alone["labels"].logits[0], atol=1e-5, rtol=1e-4
            )
            torch.testing.assert_close(
                together["caption"].logits[4 * number : 4 * number + 4], alone["caption"].logits, atol=1e-5, rtol=1e-4
            )
            said = search(model.steppers["caption"], streams, BeamConfig(beam_size=2, max_words=4))[0]
            assert said[0].words == sentences[number][0].words


@pytest.mark.parametrize("depth", ["early", "deep", "late"])
def test_one_modality_fused_is_that_modality(depth: str) -> None:
    batch = batch_of()
    plain = model_of({"depth": "none"}, {"audio": SOUND}).eval()
    fused = model_of({"depth": depth}, {"audio": SOUND}).eval()
    own = dict(zip(fused.state_dict(), plain.state_dict().values(), strict=True))
    if depth == "early":  # its one LSTM is behind the join and so stands elsewhere in the model
        names = {name: name.replace("fusion.recurrent.", "encoders.audio.1.").replace("members.fused", "members.audio")
                 for name in fused.state_dict()}  # fmt: skip
        given = {k.replace("encoders.audio.0.", "encoders.audio."): v for k, v in plain.state_dict().items()}
        own = {name: given.get(other, given.get(name)) for name, other in names.items()}
    fused.load_state_dict(own)
    with torch.no_grad():
        one, other = plain(batch), fused(batch)
    torch.testing.assert_close(one["labels"].logits, other["labels"].logits)
    torch.testing.assert_close(one["caption"].logits, other["caption"].logits)


@pytest.mark.parametrize("depth", ["early", "deep", "late"])
def test_four_clips_are_learnt_by_heart(depth: str) -> None:
    model = model_of({"depth": depth}).train()
    batch = batch_of()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(120):
        total, _ = model.loss(model(batch), batch.targets)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    with torch.no_grad():
        model.eval()
        fused = model.fusion(model.encode(batch))
        chances = model.decide(fused, batch)["labels"].log_probs().exp()
        said = search(model.steppers["caption"], fused, BeamConfig(beam_size=2, max_words=5))
    assert torch.equal((chances > 0.5).float(), batch.targets.labels)
    expected = [tuple(words[0, 1:-1].tolist()) for words in batch.targets.words]  # type: ignore[union-attr]
    assert [best[0].words for best in said] == expected
