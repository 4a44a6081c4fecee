"""One command from a comparison file to its table and page; runs that exist are used, the rest are made."""

from __future__ import annotations

import os
from pathlib import Path

from mmfusion.report.comparison import jobs_of, load_comparison
from mmfusion.report.execute import execute, make_ready
from mmfusion.report.page import write_page
from mmfusion.report.picture import as_picture
from mmfusion.report.table import make_table
from mmfusion.report.write import as_csv, as_markdown, provenance_lines, read_published


def compare(path: str | Path, overrides: tuple[str, ...] = (), publish: bool = False,
            picture: str | Path | None = None) -> str:  # fmt: skip
    """Trains what is missing, evaluates, and returns the table as Markdown.

    Writes reports/<name>/table.md, table.csv and index.html, with `publish` docs/results/<name>.md, and an SVG to
    `picture`. Raises InputError for settings and data that cannot be used; may be interrupted and run again.
    """
    comparison = load_comparison(path, overrides)
    published = read_published(Path(path).parent / comparison.published) if comparison.published else []
    jobs = jobs_of(comparison, path)
    make_ready(comparison, jobs, [Path(path).parent / model for model in comparison.language_models])
    execute(comparison, jobs)
    table = make_table(comparison, jobs)
    text = as_markdown(table, published)
    command = " ".join(["python tools/compare.py", str(path), *overrides])
    made = "\n".join(["## How this was made", "", *provenance_lines(table, command), ""])
    folder = Path("reports") / comparison.name
    _write(folder / "table.md", f"{text}\n{made}")
    _write(folder / "table.csv", as_csv(table))
    write_page(table, jobs, published, folder / "index.html", command)
    if publish:
        _write(Path("docs/results") / f"{comparison.name}.md", f"{text}\n{made}")
    if picture is not None:
        _write(Path(picture), as_picture(table, jobs))
    return text


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
