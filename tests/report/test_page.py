"""The page: everything is on it, nothing comes from outside, and hostile names stay text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fake_runs import TRUTH, make_comparison, make_run, right_first

from mmfusion.data.features import write_features
from mmfusion.data.manifest import write_manifest
from mmfusion.data.media import write_picture, write_sound
from mmfusion.report.comparison import Job
from mmfusion.report.examples import choose, decisions, find_examples
from mmfusion.report.footage import outline
from mmfusion.report.page import as_markup, write_page
from mmfusion.report.palette import looks
from mmfusion.report.table import make_table
from mmfusion.types import Clip, Source

PUBLISHED = [{"system": "S <1>", "figure": "mAP", "value": 61.3, "citation": "A 2021", "where": "table 3"}]
VOID = {"meta", "link", "img", "br"}


class Elements(HTMLParser):
    """Every element with its attributes; fails on tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def make_media(folder: Path) -> None:
    rng = np.random.default_rng(0)
    clips = []
    for number, (clip, labels) in enumerate(TRUTH.items()):
        media = {"audio": f"{clip}.wav", "video": f"{clip}.png"}
        write_sound(folder / media["audio"], rng.uniform(-0.5, 0.5, 4000), 8000)
        write_picture(folder / media["video"], rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        if number == 3:
            (folder / media["video"]).write_bytes(b"not a picture")
        sources = (Source(labels[0], 0.1, 0.3, seen=False),)
        clips.append(Clip(clip, media, "test", f"g{number // 2}", labels=tuple(labels), sources=sources))
    write_manifest(folder / "manifest.jsonl", clips)


def build(folder: Path, media: bool = True, **changes: object) -> tuple[str, list[Job]]:
    if media:
        make_media(folder)
    comparison, jobs = make_comparison(folder, **changes)
    right = {"audio": 3, "both": 7}
    for job in jobs:
        make_run(job, lambda job, clip: right_first(right.get(job.row, 5))(clip))
    write_page(make_table(comparison, jobs), jobs, PUBLISHED, folder / "page" / "index.html", "make page")
    return (folder / "page" / "index.html").read_text(encoding="utf-8"), jobs


def test_the_page_holds_everything_and_needs_nothing(tmp_path: Path) -> None:
    text, _ = build(tmp_path, notes=["See `docs` and **this** <b>."])
    page = Elements(text)
    assert "Two variants &amp; a &lt;test&gt;" in text and "<test>" not in text and "S &lt;1&gt;" in text
    assert "<code>docs</code> and <strong>this</strong> &lt;b&gt;." in text
    for part in ("37.5", "87.5", "audio alone", "both (concat)", "12.3 k", "1.23 M", "61.3", "A 2021", "table 3"):
        assert part in text, part
    for part in ("reported, not measured here", "make page", "a processor", "variants differ", "only heard"):
        assert part in text, part
    for tag, attributes in page.found:
        for key in ("src", "href", "xlink:href", "poster", "srcset", "action"):
            target = attributes.get(key) or "#"
            assert target.startswith(("#", "data:")), (tag, target)
    assert not page.all("script") and "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert all(image["alt"] for image in page.all("img"))
    assert all(head["scope"] in ("row", "col") for head in page.all("th"))
    assert all("aria-label" in drawing or drawing.get("aria-hidden") for drawing in page.all("svg"))
    assert len(page.all("audio")) == 6 == len(page.all("article"))
    assert len(text) < 3_000_000


def test_best_and_reference_are_marked(tmp_path: Path) -> None:
    text, _ = build(tmp_path)
    table = text[text.index('<table class="results">') : text.index("</table>")]
    audio, both = re.findall(r"<tr>.*?</tr>", table.split("<tbody>")[1], flags=re.S)
    assert "reference" in audio and "reference" not in both
    assert 'class="best"' in both and 'class="best"' not in audio
    assert "+50.0, p = 0.0" in both or "+50.0, p &lt; 0.001" in both


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    first, _ = build(tmp_path)
    second, _ = build(tmp_path)
    assert first == second


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    text, _ = build(tmp_path, examples=8)
    assert re.search(r"Not shown: [^<]*c3\.png", text)
    (tmp_path / "manifest.jsonl").unlink()
    text, _ = build(tmp_path, media=False)
    assert "no such manifest" in text and "<audio" not in text and "<article" in text


def test_many_rows_are_grouped(tmp_path: Path) -> None:
    """Twelve rows of one kind and the reference: curves a family, bars for the best of each family only."""
    rows = {"audio": {"set": {"model.encoders.video": None, "data.inputs.video": None,
                              "model.fusion": {"depth": "none"}}}}  # fmt: skip
    rows |= {f"j{n}": {"title": f"$ {n} < $x", "set": {"training.epochs": n + 1}} for n in range(9)}
    text, jobs = build(tmp_path, rows=rows, seeds=[0], examples=2)
    assert "accuracy (%) · single modality" in text and "the best of each kind and the reference" in text
    assert ">$ 3 &lt; $x</text>" in text
    assert len({look.colour for look in looks(jobs).values()}) == 10


def test_features_have_no_pictures(tmp_path: Path) -> None:
    for clip in TRUTH:
        write_features(tmp_path / f"{clip}.npz", np.ones((2, 3), np.float32), 1.0)
    clips = [Clip(clip, {"audio": f"{clip}.npz"}, "test", clip, labels=tuple(TRUTH[clip])) for clip in TRUTH]
    write_manifest(tmp_path / "manifest.jsonl", clips)
    alone = {"data.inputs": {"audio": {"kind": "features"}}, "model.encoders": {"audio": {"kind": "precomputed"}}}
    rows = {"audio": {"set": {**alone, "model.fusion": {"depth": "none"}}}}
    text, _ = build(tmp_path, media=False, rows=rows)
    assert text.count("no pictures, no sound") == 6 and "<img" not in text


def test_what_was_rated_is_the_truth_of_rated_clips(tmp_path: Path) -> None:
    _, jobs = build(tmp_path)
    for job in jobs:
        path = job.config.folder / "predictions.test.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["truth"] |= {"labels": None, "relevances": {"bell": 0.75}}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for example in find_examples(jobs, {}, "test", 4):
        assert example.labels == ("bell",)
        true = {guess.label: guess.true for answer in example.answers for guess in answer.guesses}
        assert true == {"bell": True, "rain": None}


def test_no_examples(tmp_path: Path) -> None:
    text, _ = build(tmp_path, media=False, examples=0)
    assert "<article" not in text and "#clips" not in text


def test_choice_of_clips() -> None:
    clips = [f"c{n}" for n in range(20)]
    groups = {clip: f"g{n // 2}" for n, clip in enumerate(clips)}
    difference = dict.fromkeys(clips, (1, 1)) | {"c7": (2, 2), "c6": (2, 2), "c15": (2, 1)}
    chosen = choose(clips, difference, groups, 6)
    assert chosen == choose(clips, difference, groups, 6) == sorted(chosen, key=clips.index)
    assert len({groups[clip] for clip in chosen}) == 6
    assert len({"c6", "c7"} & set(chosen)) == 1 and "c15" in chosen
    assert choose(clips, difference, groups, 1)[0] in ("c6", "c7")
    assert choose(clips[:3], difference, {}, 6) == clips[:3]
    assert choose([], {}, {}, 6) == []


def test_decisions_are_those_of_the_tuned_thresholds(tmp_path: Path) -> None:
    _, (job, *_) = make_comparison(tmp_path, seeds=[0], rows={"a": {"set": {"model.heads.labels.target": "multi"}}},
                                   reference=[])  # fmt: skip
    row = {"id": "c0", "labels": {"bell": 0.4, "rain": 0.6}}
    assert decisions(job, row, {}) == (frozenset(["rain"]),)
    assert decisions(job, row, {"labels": {"bell": 0.3, "rain": 0.7}}) == (frozenset(["bell"]),)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a `x*y*z` *b*", "a <code>x*y*z</code> <em>b</em>"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("[a](https://x.org/b) [c](javascript:d)", '<a href="https://x.org/b">a</a> [c](javascript:d)'),
        ('<script> & "', "&lt;script&gt; &amp; &#34;"),
    ],
)
def test_inline_markdown(given: str, expected: str) -> None:
    assert as_markup(given) == expected


def test_outline_of_silence_and_of_a_click() -> None:
    assert "nan" not in outline(np.zeros(500, np.float32))
    click = np.zeros(1000, np.float32)
    click[500] = 0.25
    heights = [float(point.split(",")[1]) for point in outline(click).split()]
    assert min(heights) == -1 and sum(height == -1 for height in heights) == 1
    assert len(outline(np.ones(3, np.float32)).split()) == 6
