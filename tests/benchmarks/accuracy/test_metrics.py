"""The three figures, on outputs made by hand."""

import numpy as np
import pytest

from approxifer.benchmarks.accuracy.metrics import ClassMetric, ValueMetric, three
from approxifer.benchmarks.erasures import Recovered, always, recover
from approxifer.benchmarks.recording import record
from approxifer.benchmarks.toy_model import project
from approxifer.coding import CodeSpec

EYE = np.eye(4)
WHOLE = Recovered(EYE, np.ones(4, bool))


def test_classes() -> None:
    lost = Recovered(EYE[[0, 1, 3, 3]], np.array([True, True, False, False]))
    assert three(WHOLE, [lost], np.arange(4)) == {"available": 1, "degraded": 0.5, "overall": 0.75}
    assert three(WHOLE, [WHOLE], np.arange(4))["degraded"] is None


def test_accuracy_is_by_label_and_agreement_by_the_uncoded_class() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    made = record("toy", rows, project, CodeSpec("systematic", 4, 1), block=None, order="similar")
    labels = (made.plain.argmax(axis=1) + 1) % 10  # a model that is always wrong
    metric = ClassMetric(labels)
    whole = recover(made, np.ones((10, 5), bool))
    assert metric.overall(made, whole) == {"accuracy": 0.0, "agreement": 1.0}
    lost = [recover(made, kept) for kept in always(made.code, 1, 10, np.random.default_rng(0))]
    assert len(lost) == 2, "five sets of losses, thrice each, of ten codewords"
    found = metric.figures(made, whole, lost)
    assert found["agreement"]["available"] == 1.0
    assert 0 < found["agreement"]["overall"] < 1


def test_values_are_measured_by_relative_error() -> None:
    rows = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
    made = record("toy", rows, project, CodeSpec("systematic", 4, 1), block=None, order="random")
    exact = np.ones(400, bool)
    exact[::2] = False
    lost = Recovered(np.where(exact[:, None], made.plain, made.plain * 1.1), exact)
    found = ValueMetric().figures(made, Recovered(made.plain, np.ones(400, bool)), [lost])
    assert found["error"]["available"] == 0
    assert found["error"]["degraded"] == pytest.approx(0.1, rel=1e-4)
    assert found["error"]["overall"] == pytest.approx(0.1 / np.sqrt(2), rel=0.05)
    low, high = found["interval"]
    assert low < found["error"]["overall"] < high
    assert high - low < 0.02


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Codewords with errors of their own: their mean is inside in about 19 of 20 draws."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(240, 6)).astype(np.float32)
    made = record("toy", rows, project, CodeSpec("systematic", 4, 1), block=None, order="natural")
    made = type(made)(**vars(made) | {"plain": np.ones((240, 1), np.float32)})
    inside = 0
    for _ in range(200):
        error = np.repeat(rng.normal(size=60), 4)  # mean square 1
        lost = Recovered(made.plain + error[:, None], np.zeros(240, bool))
        low, high = ValueMetric().figures(made, lost, [lost])["interval"]
        inside += low <= 1 <= high
    assert 180 <= inside <= 198
