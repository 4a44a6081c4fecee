"""Largest matchings of a bipartite graph (Hopcroft and Karp 1973), with the choices of sed_eval and mir_eval.

There are often several largest matchings, which differ in what they leave over. sed_eval counts substitutions among
what is left, so that its error rate depends on which one is found. Pairs are tried here in the order of its
`bipartite_match` (after an implementation by D. Eppstein), which gives its error rates; scipy's matching is as large,
but leaves other events over.
"""

from __future__ import annotations

import numpy as np


def largest_matching(fits: np.ndarray) -> dict[int, int]:
    """{row: column} of as many pairs as there can be; `fits` (rows, columns) bool says who may be paired."""
    choices: dict[int, list[int]] = {}
    for row, column in np.argwhere(fits).tolist():
        choices.setdefault(column, []).append(row)
    matched: dict[int, int] = {}
    for column, rows in choices.items():
        free = next((row for row in rows if row not in matched), None)
        if free is not None:
            matched[free] = column
    while _improve(choices, matched):
        pass
    return matched


def _improve(choices: dict[int, list[int]], matched: dict[int, int]) -> bool:
    """Makes the matching larger along shortest alternating paths that share no row; False where there is none."""
    taken = set(matched.values())
    # How a column was reached: by the row that it is matched with, or None where a path may start.
    reached: dict[int, int | None] = {column: None for column in choices if column not in taken}
    before: dict[int, list[int]] = {}
    layer, ends = list(reached), []
    while layer and not ends:
        found: dict[int, list[int]] = {}
        for column in layer:
            for row in choices[column]:
                if row not in before:
                    found.setdefault(row, []).append(column)
        before.update(found)
        ends = [row for row in found if row not in matched]
        layer = [matched[row] for row in found if row in matched]
        reached.update((matched[row], row) for row in found if row in matched)

    def rematch(row: int) -> bool:
        """Follows a path back to its start and swaps its pairs; each row and column serves one path only."""
        for column in before.pop(row, ()):
            if column in reached:
                source = reached.pop(column)
                if source is None or rematch(source):
                    matched[row] = column
                    return True
        return False

    for row in ends:
        rematch(row)
    return bool(ends)
