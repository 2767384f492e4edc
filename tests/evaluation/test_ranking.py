"""ROC, precision-recall, intervals per class and tables, against numbers worked out by hand."""

import numpy as np
import pytest

from facerwkv.core import metrics
from facerwkv.evaluation import figures, ranking
from facerwkv.evaluation.report import latex, with_intervals, write_tables

pytestmark = pytest.mark.usefixtures("drawn")

SCORE, TRUTH = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])


def test_the_curves_of_scikit_learn_s_example():
    roc, precise = ranking.roc(SCORE, TRUTH), ranking.precision_recall(SCORE, TRUTH)
    assert (roc.x.tolist(), roc.y.tolist(), roc.area) == ([0, 0, 0.5, 0.5, 1], [0, 0.5, 0.5, 1, 1], 0.75)
    assert precise.area == pytest.approx(0.8333333)
    assert precise.y.tolist() == pytest.approx([1, 1, 0.5, 2 / 3, 0.5])


def test_equal_scores_are_one_threshold():
    assert ranking.roc(np.full(4, 0.5), TRUTH).area == 0.5
    assert ranking.precision_recall(np.full(4, 0.5), TRUTH).area == 0.5


def test_averages_come_first_and_absent_classes_not_at_all():
    probs = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    roc, _ = ranking.curves(probs, np.array([0, 1, 0, 1]), ("a", "b", "c"))
    assert {name: curve.area for name, curve in roc.items()} == dict.fromkeys(
        ("micro average", "macro average", "a", "b"), 1.0
    )
    assert ranking.curves(probs, np.zeros(4, int), ("a", "b", "c")) == ({}, {})


def test_intervals_of_classes():
    matrix = np.array([[90, 10], [0, 0]])
    ends = metrics.class_intervals(matrix)
    low, high = ends["recall"][:, 0]
    assert (low, high) == pytest.approx((0.84, 0.95), abs=0.015)  # binomial: 0.9 ± 1.96 x 0.03
    assert np.isnan(ends["recall"][:, 1]).all()
    rows = with_intervals([("a", "100.0%", "90.0%", "94.7%", "100"), ("b", "0.0%", "–", "–", "0")], matrix)
    assert rows[0][0] == "a"
    assert rows[0][2].startswith("90.0% (8")
    assert rows[1] == ("b", "0.0% (0.0%–0.0%)", "–", "–", "0")


def test_tables_for_papers(tmp_path):
    write_tables(tmp_path / "classes", ("class", "F1"), [("a_b & c", "50.0% (40.0%–60.0%)")])
    assert (tmp_path / "classes.csv").read_text() == "class,F1\na_b & c,50.0% (40.0%–60.0%)\n"
    text = (tmp_path / "classes.tex").read_text()
    assert text.splitlines()[4] == r"a\_b \& c & 50.0\% (40.0\%--60.0\%) \\"
    assert latex("\\~^{}") == r"\textbackslash{}\textasciitilde{}\^{}\{\}"


@pytest.mark.parametrize(
    "labels", [("a", "b"), ("a", "b", "c"), tuple("abcd"), ("an endless name of a class " * 2, "b")]
)
def test_nothing_of_a_confusion_matrix_is_cut(labels):
    figure = figures.confusion_figure(np.eye(len(labels), dtype=int) * 7, labels)
    figures.to_png(figure)
    whole = figure.bbox
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert whole.x0 - 2 <= box.x0 < box.x1 <= whole.x1 + 2
        assert whole.y0 - 2 <= box.y0 < box.y1 <= whole.y1 + 2
    assert len(figure.axes) == 2  # and a colour bar
