"""The picture of a comparison: bars and one clip, complete in one file, whatever names are given."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from fake_runs import make_comparison, make_run, right_first
from test_page import make_media

from mmfusion.report.picture import as_picture
from mmfusion.report.table import make_table

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


def draw(folder: Path, **changes: object) -> ElementTree.Element:
    make_media(folder)
    comparison, jobs = make_comparison(folder, **changes)
    right = {"audio": 3, "both": 7}
    for job in jobs:
        make_run(job, lambda job, clip: right_first(right[job.row])(clip))
    return ElementTree.fromstring(as_picture(make_table(comparison, jobs), jobs))


@pytest.mark.parametrize("examples", [6, 0])
def test_the_picture_is_whole_in_itself(tmp_path: Path, examples: int) -> None:
    picture = draw(tmp_path, examples=examples, title='Sound & <sight> of "things"')
    assert picture.get("aria-label") == 'Sound & <sight> of "things"'
    texts = ["".join(text.itertext()) for text in picture.iter(f"{SVG}text")]
    assert "accuracy (%)" in texts and any("both (concat)" in text for text in texts)
    images = [image.get(LINK) or "" for image in picture.iter(f"{SVG}image")]
    assert all(image.startswith("data:image/") for image in images)
    assert len(images) == (2 if examples else 0)
    said = [text for text in texts if "bell" in text and "%" in text]
    assert len(said) == (2 if examples else 0), "one answer a row"
    assert ("truth" in texts) == bool(examples)


def test_everything_lies_inside(tmp_path: Path) -> None:
    picture = draw(tmp_path, examples=6)
    width, height = (float(picture.get(name) or 0) for name in ("width", "height"))
    for shape in [*picture.findall(f"{SVG}text"), *picture.findall(f"{SVG}image"), *picture.findall(f"{SVG}svg")]:
        x, y = float(shape.get("x") or -1), float(shape.get("y") or -1)
        assert x >= 0 and x + float(shape.get("width") or 0) <= width
        assert y >= 0 and y + float(shape.get("height") or 0) <= height
