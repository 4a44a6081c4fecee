"""The synthetic set: what is planned, drawn, sounded and told agree, and the same settings give the same files."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score

from mmfusion.config import validate
from mmfusion.data.manifest import read_manifest
from mmfusion.data.media import probe, read_frames, read_sound
from mmfusion.data.scenes.draw import draw_frames
from mmfusion.data.scenes.grammar import WORDS, plain_caption
from mmfusion.data.scenes.oracle import average_precision, bound, guess_caption, oracle_scores
from mmfusion.data.scenes.pictures import DRAW
from mmfusion.data.scenes.plan import LABELS, NUM_INTERVALS, SPLITS, check_settings, plan_split
from mmfusion.data.scenes.sheet import example_scene
from mmfusion.data.scenes.sound import SOUND, make_sound
from mmfusion.data.synthetic import SyntheticConfig, describe_clip, make_synthetic
from mmfusion.types import Clip, InputError, Source

SMALL = SyntheticConfig(train_clips=4, val_clips=1, test_clips=2, duration_s=2.0, size_px=32)
SILENT = ("silent", "without sound")
UNSEEN = ("off screen", "unseen", "out of sight")


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    return read_manifest(make_synthetic(tmp_path_factory.mktemp("synthetic"), SMALL, workers=1, progress=False))


def _contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_class_can_be_drawn_sounded_and_told():
    assert set(DRAW) == set(SOUND) == set(WORDS) == set(LABELS)
    assert len(LABELS) >= 12


@given(seed=st.integers(0, 2**31), duration_s=st.floats(2, 8), min_event_s=st.floats(0.2, 1.7))
@settings(max_examples=15, deadline=None)
def test_events_lie_inside_the_clip(seed, duration_s, min_event_s):
    config = SyntheticConfig(seed=seed, duration_s=duration_s, min_event_s=min_event_s, train_clips=20)
    for plan in plan_split(config, "train"):
        labels = [event.label for event in plan.events]
        assert len(set(labels)) == len(labels) and 1 <= len(labels) <= 3
        for event in plan.events:
            assert event.start_s >= 0 and event.end_s <= duration_s
            assert event.end_s - event.start_s >= min_event_s
            assert event.seen or event.heard


def test_proportions_are_as_set():
    plans = plan_split(SyntheticConfig(train_clips=600), "train")
    events = [event for plan in plans for event in plan.events]
    counts = Counter(len(plan.events) for plan in plans)
    assert [round(counts[n] / 600, 2) for n in (1, 2, 3)] == [0.4, 0.4, 0.2]
    per_class = Counter(event.label for event in events)
    assert max(per_class.values()) - min(per_class.values()) <= 3
    for label in LABELS:
        mine = [event for event in events if event.label == label]
        assert np.mean([e.seen and e.heard for e in mine]) == pytest.approx(0.4, abs=0.05)
        assert np.mean([e.seen and not e.heard for e in mine]) == pytest.approx(0.3, abs=0.05)


def test_splits_share_no_cell_but_every_interval():
    plans = {
        split: plan_split(SyntheticConfig(train_clips=300, val_clips=300, test_clips=300), split) for split in SPLITS
    }
    groups = {split: {plan.group for plan in plans[split]} for split in SPLITS}
    assert not groups["train"] & groups["test"] and not groups["train"] & groups["val"]
    assert not groups["val"] & groups["test"]
    for split in SPLITS:
        for axis, name in enumerate(("shade", "size", "pitch", "speed")):
            assert {plan.cell[axis] for plan in plans[split]} == set(range(NUM_INTERVALS))
            for plan in plans[split][:20]:
                assert all(int(getattr(e, name) * NUM_INTERVALS) == plan.cell[axis] for e in plan.events)


def test_more_clips_leave_the_first_ones_as_they_were():
    few, many = (plan_split(SyntheticConfig(test_clips=n), "test") for n in (5, 30))
    assert many[:5] == few
    assert plan_split(SyntheticConfig(seed=1, test_clips=5), "test") != few


def test_same_files_for_any_number_of_workers(tmp_path, monkeypatch):
    config = SyntheticConfig(train_clips=1, val_clips=1, test_clips=3)
    make_synthetic(tmp_path / "one", config, workers=1, progress=False)
    # The C library then fills fresh memory in the workers: an encoder that reads it before writing is found out.
    monkeypatch.setenv("MALLOC_PERTURB_", "170")
    make_synthetic(tmp_path / "two", config, workers=2, progress=False)
    assert _contents(tmp_path / "one") == _contents(tmp_path / "two")


def test_takes_up_an_interrupted_run(small_set, tmp_path):
    make_synthetic(tmp_path, SMALL, workers=1, progress=False)
    kept, lost = tmp_path / "clips/train/train-00000.mp4", tmp_path / "clips/test/test-00001.mp4"
    lost.unlink()
    (tmp_path / "manifest.jsonl").unlink()
    before = kept.stat().st_mtime_ns
    make_synthetic(tmp_path, SMALL, workers=1, progress=False)
    assert kept.stat().st_mtime_ns == before
    assert _contents(tmp_path) == _contents(small_set.path.parent)


def test_refuses_a_folder_with_other_settings(small_set):
    with pytest.raises(InputError, match=r"settings\.json: seed is 0 .* not 3"):
        make_synthetic(small_set.path.parent, replace(SMALL, seed=3), workers=1, progress=False)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        make_synthetic(tmp_path / "file" / "set", SMALL, workers=1, progress=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"silent": 0.5},
        {"event_counts": [0.5, 0.5, 0.5]},
        {"min_event_s": 3.9},
        {"size_px": 65},
        {"test_clips": -1},
        {"captions_per_clip": 0},
        {"frame_rate": 0.0},
    ],
)
def test_settings_that_cannot_be_met_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        check_settings(validate(SyntheticConfig, wrong, "test"))


def test_clips_hold_what_was_planned(small_set):
    plan = plan_split(SMALL, "train")[0]
    clip = small_set.split("train")[0]
    path = small_set.resolve(clip, "video")
    info = probe(path)
    assert info.has_audio and info.has_video and info.duration_s == pytest.approx(2.0, abs=0.1)
    frames, sound = read_frames(path, SMALL.frame_rate, SMALL.size_px), read_sound(path, SMALL.sample_rate_hz)
    assert np.abs(frames.data.astype(float) - draw_frames(plan, SMALL)).mean() < 8
    made = make_sound(plan, SMALL)
    assert np.corrcoef(sound.data[: len(made)], made)[0, 1] > 0.95
    assert set(clip.labels) == {source.label for source in clip.sources} == {e.label for e in plan.events}
    assert [(s.seen, s.heard) for s in clip.sources] == [(e.seen, e.heard) for e in plan.events]


def test_silent_is_not_heard_and_off_screen_is_not_seen():
    config = SyntheticConfig(size_px=32)
    plan = example_scene("bell", 0)
    (event,) = plan.events
    silent = replace(plan, events=(replace(event, heard=False),))
    off_screen = replace(plan, events=(replace(event, seen=False),))
    assert np.array_equal(make_sound(silent, config), make_sound(replace(plan, events=()), config))
    hidden = draw_frames(off_screen, config)
    assert (hidden == hidden[0]).all()
    assert np.array_equal(draw_frames(silent, config), draw_frames(plan, config))
    assert np.array_equal(make_sound(off_screen, config), make_sound(plan, config))


@pytest.mark.parametrize("label", LABELS)
def test_picture_and_sound_of_an_event_begin_and_end_together(label):
    config = SyntheticConfig(size_px=64)
    plan = example_scene(label, 1)
    (event,) = plan.events
    frames = draw_frames(plan, config).astype(int)
    drawn = np.flatnonzero(np.abs(frames - frames[0]).sum((1, 2, 3))) / config.frame_rate
    assert event.start_s <= drawn[0] <= event.start_s + 0.25
    assert event.end_s - 0.25 <= drawn[-1] < event.end_s
    moving = np.abs(np.diff(frames, axis=0)).sum((1, 2, 3))[(drawn * config.frame_rate).astype(int)[:-1]]
    assert (moving > 0).mean() > 0.15
    sound = make_sound(plan, config) - make_sound(replace(plan, events=()), config)
    heard = np.flatnonzero(np.abs(sound) > 0.005) / config.sample_rate_hz
    assert event.start_s <= heard[0] <= event.start_s + 0.4
    assert event.end_s - 0.8 <= heard[-1] <= event.end_s
    assert np.abs(sound).max() > 0.05


def test_the_ball_touches_the_ground_when_it_thuds():
    config = SyntheticConfig(frame_rate=50.0)
    plan = example_scene("ball", 0)
    (event,) = plan.events
    frames = draw_frames(plan, config).astype(int)
    changed = np.abs(frames - frames[0]).sum(3)[:, :60] > 60
    lowest = [np.flatnonzero(c.any(1)).max() if c.any() else 0 for c in changed]
    sound = np.abs(make_sound(plan, config))
    for beat in (1, 2, 3):
        touch = event.start_s + beat * event.period_s
        at = round(touch * config.frame_rate)
        assert lowest[at] >= max(lowest[at - 8], lowest[at + 8])
        rate = config.sample_rate_hz
        after, before = (sound[int((touch + a) * rate) : int((touch + a + 0.05) * rate)].max() for a in (0, -0.06))
        assert after > 4 * before


def test_captions_say_what_is_seen_and_what_is_heard():
    config = replace(SMALL, train_clips=60, val_clips=0, test_clips=0)
    for plan in plan_split(config, "train"):
        clip = describe_clip(plan, config)
        assert len(set(clip.captions)) == 5
        for caption in clip.captions:
            assert 2 <= len(caption.split()) <= 22
            for event in plan.events:
                assert any(noun in caption for noun in WORDS[event.label].nouns)
            silent = sum(caption.count(words) for words in SILENT)
            assert silent == sum(not event.heard for event in plan.events)
            assert sum(caption.count(words) for words in UNSEEN) == sum(not event.seen for event in plan.events)


def test_the_plain_caption_puts_the_seen_first():
    events = [Source("siren", 0.1, 2.0, seen=False), Source("ball", 0.5, 2.0), Source("bell", 0.2, 2.0, heard=False)]
    assert plain_caption(events) == "a silent bell swings and a ball bounces while a siren wails off screen"
    assert plain_caption([Source("rain", 0, 1, heard=False)]) == "silent rain falls"


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 1.0])), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_average_precision_is_that_of_sklearn(rows):
    truth, scores = np.array([t for t, _ in rows] + [True]), np.array([s for _, s in rows] + [0.3])
    assert average_precision(truth, scores) == pytest.approx(average_precision_score(truth, scores))


def test_oracle_knows_what_its_modality_shows():
    def clip(number, *sources):
        return Clip(str(number), {"video": "x"}, "test", "g", labels=tuple(s.label for s in sources), sources=sources)

    heard, silent = Source("bell", 0, 1, seen=False), Source("car", 0, 1, heard=False)
    clips = [clip(1, heard, silent), clip(2, heard), clip(3, silent), clip(4, silent)]
    scores = oracle_scores(clips, clips, ("bell", "car"), lambda source: source.heard)
    assert scores.tolist() == [[1, 0.5], [1, 0.5], [0, 1], [0, 1]]
    assert guess_caption(clips[0], "both") == "a silent car passes while a bell rings off screen"
    assert guess_caption(clips[0], "audio") == "a bell swings and rings"


def test_bounds_leave_room_for_fusion(tmp_path, monkeypatch):
    monkeypatch.setattr("mmfusion.data.synthetic._render_all", lambda *_: None)
    manifest = read_manifest(make_synthetic(tmp_path, SyntheticConfig(), workers=1, progress=False))
    audio, video, both = (bound(manifest, system) for system in ("audio", "video", "both"))
    assert both.mean_average_precision == 1 and both.clips_known == 1
    for single in (audio, video):
        assert 0.7 < single.mean_average_precision < 0.87
        assert single.events_known == pytest.approx(0.7, abs=0.03)


def _sound_features(sound):
    frames = sound[: len(sound) // 400 * 400].reshape(-1, 400) * np.hanning(400)
    power = np.abs(np.fft.rfft(frames)) ** 2
    bands = np.log(np.stack([b.mean(1) for b in np.array_split(power[:, 1:], 40, axis=1)], 1) + 1e-6)
    return np.concatenate([bands.mean(0), bands.std(0), bands.max(0), np.abs(np.diff(bands, axis=0)).mean(0)])


def _picture_features(frames):
    still = np.median(frames, axis=0)
    moved = np.abs(frames - still).sum(3) > 60
    pixels = frames[moved].astype(int) // 52
    colours = np.bincount(pixels @ np.array([25, 5, 1]), minlength=125) / max(len(pixels), 1)
    rows, columns = moved.mean((0, 2)), moved.mean((0, 1))
    return np.concatenate([colours, np.sort(rows), np.sort(columns), [moved.mean()]])


@pytest.mark.parametrize(("features", "least"), [("sound", 0.9), ("picture", 0.7)])
def test_a_simple_model_separates_the_classes(features, least):
    config = SyntheticConfig(
        train_clips=144, test_clips=60, event_counts=(1.0, 0.0, 0.0), seen_and_heard=1.0, silent=0.0, off_screen=0.0
    )
    config = replace(config, frame_rate=4.0, size_px=48)
    sets = []
    for split in ("train", "test"):
        plans = plan_split(config, split)
        rows = [
            _sound_features(make_sound(p, config)) if features == "sound" else _picture_features(draw_frames(p, config))
            for p in plans
        ]
        sets.append((np.stack(rows), [plan.events[0].label for plan in plans]))
    model = RandomForestClassifier(200, random_state=0).fit(*sets[0])
    assert model.score(*sets[1]) >= least
