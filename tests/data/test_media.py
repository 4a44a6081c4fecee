"""What the readers give back: sizes, orientation, colours, missing modalities; and what they say of bad files."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_making import clicks, flashes, picture, write_media
from PIL import Image

from mmfusion.data.media import (
    MediaError,
    Tally,
    probe,
    read_frames,
    read_frames_at,
    read_sound,
    stream_sound,
    write_clip,
    write_picture,
    write_sound,
)
from mmfusion.types import InputError


def corners(height: int, width: int) -> np.ndarray:
    """A picture whose quarters differ: red, green over blue, white."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2, 0] = 255
    image[: height // 2, width // 2 :, 1] = 255
    image[height // 2 :, : width // 2, 2] = 255
    image[height // 2 :, width // 2 :] = 255
    return image


def colour_names(image: np.ndarray) -> list[str]:
    """The quarters of a picture, in reading order."""
    height, width = image.shape[:2]
    names = {(True, False, False): "r", (False, True, False): "g", (False, False, True): "b", (True,) * 3: "w"}
    centres = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [names[tuple((image[y, x] > 128).tolist())] for y, x in centres]


@pytest.mark.parametrize(
    ("rotation_deg", "mirrored", "expected"),
    [
        (0, False, "rgbw"),
        (-90, False, "brwg"),
        (90, False, "gwrb"),
        (180, False, "wbgr"),
        (0, True, "grwb"),
    ],
)
def test_frames_come_back_upright(tmp_path, rotation_deg, mirrored, expected):
    image = corners(48, 64)
    path = write_media(
        tmp_path / "turned.mp4", [(k / 5, image) for k in range(5)], None, 0.0, 48000, rotation_deg, mirrored
    )
    for backend in ["pyav", *(["decord"] if not mirrored and has_decord() else [])]:
        frames = read_frames(path, 5.0, 32, fit="stretch", backend=backend)
        assert "".join(colour_names(frames.data[0])) == expected
    info = probe(path)
    assert (info.width_px, info.height_px) == (64, 48)
    if not mirrored:
        assert abs(info.rotation_deg) == abs(rotation_deg) and (
            abs(rotation_deg) == 180 or info.rotation_deg == rotation_deg
        )
    upright = read_frames(path, 5.0, (40, 40), fit="pad").data[0]
    rows = np.flatnonzero(upright.max(axis=(1, 2)) > 60)
    columns = np.flatnonzero(upright.max(axis=(0, 2)) > 60)
    assert (len(rows), len(columns)) == ((40, 30) if abs(rotation_deg) == 90 else (30, 40))


def has_decord() -> bool:
    try:
        import decord  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("size_px", [16, (16, 16), (20, 32), (50, 10)])
@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
def test_sizes(tmp_path, size_px, fit):
    path = tmp_path / "clip.mp4"
    write_clip(path, np.stack([corners(48, 64)] * 4), 4, None, 16000)
    frames = read_frames(path, 4.0, size_px, fit=fit)
    height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
    assert frames.data.shape == (4, height, width, 3) and frames.data.dtype == np.uint8 and frames.mask.all()
    assert frames.data.flags["C_CONTIGUOUS"]
    if fit != "pad":
        assert colour_names(frames.data[0]) == list("rgbw")


def test_wide_pixels_are_stretched(tmp_path):
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(picture(255)[:32, :32].copy())), *stream.encode(None)]:
            container.mux(packet)
    padded = read_frames(path, 5.0, 40, fit="pad").data[0]
    assert (np.flatnonzero(padded.max(axis=(1, 2)) > 128).size, padded[20, :].min() > 245) == (20, True)


def test_a_still_picture_is_one_step_that_lasts(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "still_%03d.png"
    image = rng.integers(0, 256, (28, 28), dtype=np.uint8)
    write_picture(path, image)
    assert np.array_equal(np.asarray(Image.open(path)), image)
    frames = read_frames(path, 4.0, 28)
    assert frames.data.shape == (1, 28, 28, 3) and frames.mask.tolist() == [True]
    assert np.array_equal(frames.data[0], np.repeat(image[..., None], 3, axis=2))
    held = read_frames(path, 4.0, 28, 0.0, 1.5)
    assert held.mask.tolist() == [True] * 6 and all(np.array_equal(step, frames.data[0]) for step in held.data)
    assert len(read_frames(path, 4.0, 28, 0.0, 1.5, hold_stills=False).mask) == 1
    assert read_frames_at(path, [0.0, 7.0], 28).mask.all()
    assert read_sound(path, 16000) is None
    info = probe(path)
    assert info.is_still and info.has_video and not info.has_audio and (info.width_px, info.height_px) == (28, 28)


def test_colour_stills_match_pillow(tmp_path):
    image = corners(32, 40)
    write_picture(tmp_path / "a.png", image)
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=95, subsampling=0)
    Image.fromarray(image).rotate(90, expand=True).save(tmp_path / "b.jpg", exif=_exif(6), quality=95, subsampling=0)
    for name, tolerance in (("a.png", 0), ("a.jpg", 4), ("b.jpg", 4)):
        found = read_frames(tmp_path / name, 1.0, (32, 40)).data[0].astype(int)
        assert np.abs(found - image)[2:-2, 2:-2].mean() <= tolerance, name


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_one_modality_is_enough(tmp_path):
    silent = write_media(tmp_path / "silent.mp4", flashes(0.5, 0.0, 10, 1.0), None)
    assert read_sound(silent, 16000) is None and read_frames(silent, 4.0, 8).mask.all()
    assert (probe(silent).has_video, probe(silent).has_audio, probe(silent).sample_rate_hz) == (True, False, None)
    heard = write_media(tmp_path / "heard.mp4", None, clicks(0.5, 0.0, 48000, 1.0))
    assert read_frames(heard, 4.0, 8) is None and read_frames_at(heard, [0.0], 8) is None
    assert read_sound(heard, 16000).mask.all()
    assert (probe(heard).has_video, probe(heard).has_audio, probe(heard).width_px) == (False, True, None)


def test_cover_art_is_no_video(tmp_path):
    write_picture(tmp_path / "cover.png", corners(32, 32))
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as container, av.open(str(tmp_path / "cover.png")) as cover:
        sound = container.add_stream("mp3", rate=44100, layout="mono")
        art = container.add_stream_from_template(cover.streams.video[0])
        art.disposition = av.stream.Disposition.attached_pic
        packet = next(cover.demux(video=0))
        packet.stream = art
        container.mux(packet)
        frame = av.AudioFrame.from_ndarray(clicks(0.5, 0.0, 44100, 1.0)[None], format="fltp", layout="mono")
        frame.sample_rate = 44100
        for packet in [*sound.encode(frame), *sound.encode(None)]:
            container.mux(packet)
    info = probe(path)
    assert info.has_audio and not info.has_video and not info.is_still
    assert read_frames(path, 4.0, 8) is None
    loud = np.flatnonzero(np.abs(read_sound(path, 16000).data) > 0.3)
    assert loud[0] / 16000 == pytest.approx(0.5, abs=0.002)


def test_wav_comes_back_exactly(tmp_path):
    sound = np.random.default_rng(0).uniform(-1.2, 1.2, 5000).astype(np.float32)
    write_sound(tmp_path / "a.wav", sound, 16000)
    back = read_sound(tmp_path / "a.wav", 16000)
    assert back.mask.all() and back.data.shape == sound.shape
    assert np.abs(back.data - np.clip(sound, -1, 1)).max() <= 1 / 32768
    part = read_sound(tmp_path / "a.wav", 16000, 0.1, 0.2)
    assert np.array_equal(part.data, back.data[1600:3200])
    past = read_sound(tmp_path / "a.wav", 16000, 5.0, 6.0)
    assert len(past.data) == 16000 and not past.mask.any()


@pytest.mark.parametrize("num_channels", [1, 2, 3, 6])
def test_channels_are_mixed_to_one(tmp_path, num_channels):
    """Also where the file does not say which loudspeaker a channel is for."""
    import wave

    tone = np.round(8000 * np.sin(np.arange(1600) / 5)).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(num_channels)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.repeat(tone[:, None], num_channels, axis=1).tobytes())
    assert probe(tmp_path / "a.wav").num_channels == num_channels
    sound = read_sound(tmp_path / "a.wav", 16000)
    assert sound.mask.all() and np.corrcoef(sound.data, tone)[0, 1] > 0.999
    assert 0.1 < np.abs(sound.data).max() < 0.3


def test_a_gap_in_the_sound_stays_a_gap(tmp_path):
    path = tmp_path / "gap.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for start_s in (0.0, 0.1, 0.2, 1.0, 1.1):
            frame = av.AudioFrame.from_ndarray(np.full((1, 1600), 8000, np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, round(start_s * 16000), Fraction(1, 16000)
            for packet in stream.encode(frame):
                container.mux(packet)
    sound = read_sound(path, 16000)
    assert len(sound.data) == 19200
    assert sound.mask[:4800].all() and not sound.mask[4800:16000].any() and sound.mask[16000:].all()
    assert not sound.data[4800:16000].any()


def test_a_truncated_file_gives_what_is_left(tmp_path):
    sound = clicks(0.5, 0.0, 48000, 8.0)
    whole = write_media(tmp_path / "whole.mkv", flashes(1.0, 0.0, 25, 8.0), sound).read_bytes()
    for share in (0.9, 0.5, 0.2):
        path = tmp_path / "cut.mkv"
        path.write_bytes(whole[: int(len(whole) * share)])
        frames, heard = read_frames(path, 4.0, 8), read_sound(path, 16000)
        assert frames.mask[0] and 1 <= frames.mask.sum() < 32 and heard.mask[8000:8100].all()
    moov_lost = write_media(tmp_path / "whole.mp4", flashes(1.0, 0.0, 25, 2.0), None).read_bytes()[:-200]
    (tmp_path / "cut.mp4").write_bytes(moov_lost)
    with pytest.raises(MediaError, match=r"cut\.mp4"):
        read_frames(tmp_path / "cut.mp4", 4.0, 8)


def test_damaged_frames_of_a_flac_are_left_out_and_told(tmp_path):
    """What fails its checksum would be noise as loud as it likes."""
    sound = 0.3 * np.random.default_rng(0).uniform(-1, 1, 80000).astype(np.float32)
    path = write_media(tmp_path / "a.flac", None, sound, sample_rate_hz=16000)
    whole, content = read_sound(path, 16000), bytearray(path.read_bytes())
    assert whole.mask.all() and not whole.num_broken
    middle = len(content) // 2
    content[middle : middle + 50] = np.random.default_rng(1).integers(0, 256, 50, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    found, tally = read_sound(path, 16000), Tally()
    assert (found.num_broken, found.reason) == (1, "damaged frames are left out")
    assert 0 < (~found.mask).sum() < 10000 and not found.data[~found.mask].any()
    np.testing.assert_array_equal(found.data[found.mask], whole.data[found.mask])
    streamed = np.concatenate(list(stream_sound(path, 16000, tally)))
    np.testing.assert_array_equal(streamed, found.data)
    assert tally.num_broken == 1


def test_a_short_damaged_frame_of_a_flac_is_told_too(tmp_path):
    """Blocks of 12 ms, less than other containers' stamps are off by."""
    sound = 0.3 * np.random.default_rng(0).uniform(-1, 1, 96000).astype(np.float32)
    with av.open(str(tmp_path / "a.flac"), "w") as container:
        stream = container.add_stream("flac", rate=96000, layout="mono")
        stream.codec_context.options = {"compression_level": "0", "frame_size": "1152"}
        for first in range(0, 96000, 1152):
            frame = av.AudioFrame.from_ndarray(sound[None, first : first + 1152], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 96000, first, Fraction(1, 96000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.flac").write_bytes(content)
    found = read_sound(tmp_path / "a.flac", 96000)
    assert (found.num_broken, found.reason) == (1, "damaged frames are left out")
    assert (~found.mask).sum() in (1152, 2304) and len(found.data) == 96000


def test_damage_is_counted_and_not_fatal(tmp_path):
    rng = np.random.default_rng(0)
    images = [(k / 10, rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for k in range(60)]
    path = write_media(tmp_path / "a.ts", images, clicks(3.0, 0.0, 48000, 6.0))
    content = bytearray(path.read_bytes())
    for place in rng.integers(len(content) // 4, len(content) // 2, 400):
        content[place] ^= 0xFF
    path.write_bytes(content)
    frames, sound = read_frames(path, 5.0, 8), read_sound(path, 16000)
    assert frames.num_broken and frames.reason and frames.mask[:3].all() and frames.mask[-5:].all()
    assert sound.mask[:1000].all() and len(sound.data) == pytest.approx(6 * 16000, abs=1600)


def bad_files(folder: Path) -> list[Path]:
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "text.wav").write_text("this is no sound\n" * 50)
    (folder / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nnowhere.ts\n")
    (folder / "list.ffconcat").write_text("ffconcat version 1.0\nfile 'noise.mp4'\n")
    return [folder, folder / "missing.mp4", *sorted(p for p in folder.iterdir())]


def test_bad_files_are_one_sentence(tmp_path, capfd):
    for path in bad_files(tmp_path):
        for read in (probe, lambda p: read_frames(p, 4.0, 8), lambda p: read_sound(p, 16000)):
            with pytest.raises(MediaError) as caught:
                read(path)
            assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(MediaError, match="not a file"):
        probe(tmp_path / "pipe.mp4")


def test_odd_names(tmp_path):
    for name in ("with space.wav", "a:b.wav", "http:.wav", "ünï'%03d\".wav", "-i.wav"):
        write_sound(tmp_path / name, np.zeros(100, np.float32), 16000)
        assert read_sound(tmp_path / name, 16000).mask.all()


def test_bad_arguments_name_the_field(tmp_path):
    path = tmp_path / "a.wav"
    write_sound(path, np.zeros(1600, np.float32), 16000)
    for call, field in (
        (lambda: read_frames(path, 0.0, 8), "rate"),
        (lambda: read_frames(path, 1.0, 8, -1.0), "start_s"),
        (lambda: read_frames(path, 1.0, 8, 2.0, 1.0), "end_s"),
        (lambda: read_frames_at(path, [float("nan")], 8), "times_s"),
        (lambda: read_sound(path, 0), "sample_rate_hz"),
        (lambda: read_sound(path, 16000, 2.0, 1.0), "end_s"),
        (lambda: read_sound(path, 16000, float("nan")), "start_s"),
        (lambda: write_sound(path, np.full(3, np.nan, np.float32), 16000), "sound"),
        (lambda: write_clip(path, np.zeros((1, 3, 4, 3), np.uint8), 4, None, 16000), "frames"),
        (lambda: write_clip(path, None, 4, None, 16000), "frames or sound"),
        (lambda: write_picture(path, np.zeros((3, 4), np.float32)), "picture"),
    ):
        with pytest.raises(InputError, match=field):
            call()


def test_writing_twice_gives_the_same_bytes(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    sound = (0.1 * rng.standard_normal(16000)).astype(np.float32)
    for name, write in (
        ("a.mp4", lambda path: write_clip(path, frames, 12, sound, 16000)),
        ("a.wav", lambda path: write_sound(path, sound, 16000)),
        ("a.png", lambda path: write_picture(path, frames[0])),
    ):
        write(tmp_path / "one" / name)
        write(tmp_path / "two" / name)
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        assert [path.name for path in (tmp_path / "one").glob(f"*{name}*")] == [name]


@pytest.mark.skipif(not has_decord(), reason="decord is not installed here")
@pytest.mark.parametrize("pictures_s", [0.0, 0.52])
def test_decord_gives_the_same_frames(tmp_path, pictures_s):
    rng = np.random.default_rng(0)
    images = [(pictures_s + t, picture(int(rng.integers(256)))) for t in (0.0, 0.1, 0.3, 0.35, 0.9, 1.0, 1.1)]
    path = write_media(tmp_path / "a.mp4", images, clicks(0.5, 0.0, 48000, 2.0))
    for start_s, end_s in ((0.0, 1.4), (0.7, 1.5)):
        ours = read_frames(path, 10.0, 16, start_s, end_s)
        theirs = read_frames(path, 10.0, 16, start_s, end_s, backend="decord")
        assert np.array_equal(ours.mask, theirs.mask)
        assert np.abs(ours.data.astype(int) - theirs.data).max() <= 3


def test_decord_missing_is_one_sentence(tmp_path, monkeypatch):
    path = write_media(tmp_path / "a.mp4", flashes(0.5, 0.0, 10, 1.0), None)
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(InputError, match="decord is not installed"):
        read_frames(path, 4.0, 8, backend="decord")
