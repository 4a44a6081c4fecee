"""Classical classifiers of sounds by scikit-learn: what a network has to beat.

k-NN (5 neighbours, or what the row says), a support vector machine with a linear kernel, and a random forest (500
trees), on the 26 numbers of data/mfcc.py a sound, standardized over the training clips. A clip without sound has the
mean of the training clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from scipy.special import softmax
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mmfusion.data import mfcc
from mmfusion.data.clips import ClipCache
from mmfusion.data.inputs import WaveformInput
from mmfusion.data.mfcc import NUM_STATISTICS, cepstral_statistics
from mmfusion.report.comparison import NUM_NEIGHBOURS, Baseline, LabelBaseline
from mmfusion.types import THRESHOLD, Clip, InputError

METHOD = 1
"""to be raised when the classifiers say something else by the same constants"""
NUM_TREES = 500


def method() -> dict[str, Any]:
    """Everything beside a row's own settings that decides what its classifier says, as plain values."""
    return {"version": METHOD, "neighbours": NUM_NEIGHBOURS, "trees": NUM_TREES, "statistics": mfcc.method()}


class ClassicalTagger:
    """One classifier of all classes (`single`), or one a class, each fitted on the clips of which its truth is known.

    `seed` is what a forest draws from; the others draw nothing.
    """

    def __init__(self, baseline: Baseline, single: bool, seed: int) -> None:
        assert baseline.kind in get_args(LabelBaseline)
        self.baseline, self.single, self.seed = baseline, single, seed
        self._fitted: list[Any] = []

    def fit(self, statistics: np.ndarray, truth: np.ndarray, known: np.ndarray) -> None:
        """Learns from `statistics` (N, F), NaN where a clip has none, and `truth` (N, C), positive from 0.5 on.

        Where `known` (N, C) is False nothing counts, not even the clip's statistics. InputError when the known clips
        are of fewer than two classes (`single`).
        """
        positive = truth >= THRESHOLD
        self._num_classes = truth.shape[1]
        if not self.single:
            cells = zip(positive.T, known.T, strict=True)
            self._fitted = [self._fit_class(statistics, own, there) for own, there in cells]
            return
        clips = known.all(axis=1)
        label = positive[clips].argmax(axis=1)
        if len(np.unique(label)) < 2:
            raise InputError(f"a {self.baseline.kind} row needs training clips of two classes or more")
        self._fitted = [self._fit(statistics[clips], label)]

    def chances(self, statistics: np.ndarray) -> np.ndarray:
        """(M, C) in [0, 1]: shares of the neighbours' or the trees' votes; the machine's margins through a softmax.

        The highest of a clip (`single`), or what is 0.5 and more, is what the classifier itself decides. A class of
        which the training clips know one side only is always said, or never; margins are no calibrated probabilities.
        """
        chances = np.zeros((len(statistics), self._num_classes))
        if self.single:
            fitted = self._fitted[0]
            chances[:, fitted.classes_] = self._votes(fitted, statistics)
            return chances
        for column, fitted in enumerate(self._fitted):
            chances[:, column] = fitted if isinstance(fitted, float) else self._votes(fitted, statistics)[:, 1]
        return chances

    def _fit_class(self, statistics: np.ndarray, positive: np.ndarray, known: np.ndarray) -> Any:
        own = positive[known]
        return float(own.any()) if own.all() or not own.any() else self._fit(statistics[known], own)

    def _fit(self, statistics: np.ndarray, label: np.ndarray) -> Any:
        kind = self.baseline.kind
        if kind == "knn":
            model: Any = KNeighborsClassifier(min(self.baseline.neighbours or NUM_NEIGHBOURS, len(label)))
        elif kind == "svm":
            # Ties between the votes of its pairs are broken by margin, so that the decision is the highest margin.
            model = SVC(kernel="linear", break_ties=True)
        else:
            model = RandomForestClassifier(NUM_TREES, random_state=self.seed)
        filled = SimpleImputer(keep_empty_features=True)
        return make_pipeline(filled, StandardScaler(), model).fit(statistics, label)

    def _votes(self, fitted: Any, statistics: np.ndarray) -> np.ndarray:
        if self.baseline.kind != "svm":
            return fitted.predict_proba(statistics)
        margins = fitted.decision_function(statistics)
        return softmax(margins if margins.ndim == 2 else np.stack([0 * margins, margins], axis=1), axis=1)


def sound_statistics(cache: ClipCache, clips: Sequence[Clip]) -> np.ndarray:
    """(N, F): the statistics of every waveform input side by side; NaN for one that a clip lacks."""
    inputs = [name for name, config in cache.inputs.items() if isinstance(config, WaveformInput)]
    if not inputs:
        raise InputError(f"{cache.manifest.path}: a knn, svm or forest row listens, and data.inputs has no waveform")
    rows = []
    for clip in clips:
        raws = cache.load(clip)
        rows.append([
            cepstral_statistics(raws[name].data, raws[name].mask, round(raws[name].rate)) if name in raws
            else np.full(NUM_STATISTICS, np.nan)
            for name in inputs
        ])  # fmt: skip
    return np.array(rows, dtype=np.float64).reshape(len(rows), -1)
