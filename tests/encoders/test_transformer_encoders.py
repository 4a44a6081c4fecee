from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kinds import make, make_raw, save_checkpoint

from mmfusion.encoders.audio_transformer import TransformersAudioConfig, build_transformers_audio, kaldi_log_mel
from mmfusion.encoders.pretrained import load_transformer
from mmfusion.encoders.video_transformer import TransformersVideo, TransformersVideoConfig
from mmfusion.types import InputError, Stream


def test_log_mel_is_that_of_the_feature_extractor() -> None:
    from torchaudio.compliance.kaldi import fbank

    data = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    own = kaldi_log_mel(Stream(data, torch.ones_like(data, dtype=torch.bool), 16000.0), 128)
    # frame 0 is centred at 0.1 of a 160-sample hop, and 400 samples wide
    theirs = fbank(torch.nn.functional.pad(data, (184, 300)), window_type="hanning", num_mel_bins=128)
    torch.testing.assert_close(own.data[0], theirs[: own.data.shape[1]], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_long_sound_is_read_in_stretches(tmp_path: Path) -> None:
    encoder = make("ast", tmp_path)
    steps = encoder(make_raw("ast", [5.3]))  # the tiny model reads 2.05 s
    assert steps.data.shape == (1, 27, 16) and steps.mask.all() and steps.data.std() > 0.01


@torch.no_grad()
def test_weights_none_is_another_network(tmp_path: Path) -> None:
    raw = make_raw("vit", [1.0])
    trained, random = make("vit", tmp_path)(raw), make("vit", tmp_path, weights="none")(raw)
    assert trained.data.shape == random.data.shape and not torch.allclose(trained.data, random.data)


def test_unusable_models_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    empty = tmp_path / "empty"
    empty.mkdir()
    vit = save_checkpoint("vit", tmp_path / "vit")
    with pytest.raises(InputError, match="empty"):
        load_transformer(str(empty), "pretrained")
    with pytest.raises(InputError, match="vit model is neither"):
        build_transformers_audio(TransformersAudioConfig(model=vit))
    (tmp_path / "vit" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot be loaded"):
        TransformersVideo(TransformersVideoConfig(model=vit))


def test_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    vit = save_checkpoint("vit", tmp_path / "vit")
    save_file({"something": torch.zeros(2)}, tmp_path / "vit" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="holds no"):
        load_transformer(vit, "pretrained")


def test_pickled_code_in_a_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("this must never run",))

    vit = save_checkpoint("vit", tmp_path / "vit")
    (tmp_path / "vit" / "model.safetensors").unlink()
    torch.save({"weight": Code()}, tmp_path / "vit" / "pytorch_model.bin")
    with pytest.raises(InputError, match="vit"):
        load_transformer(vit, "pretrained")
    assert "never run" not in capsys.readouterr().out


def test_sample_rate_must_be_the_models(tmp_path: Path) -> None:
    raw = make_raw("ast", [1.0])
    with pytest.raises(InputError, match=r"16000 Hz.*got 8000"):
        make("ast", tmp_path)(Stream(raw.data, raw.mask, 8000.0))
