"""Charts: every value is drawn once, inside the drawing, and told to those who do not see it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.pages.charts import BINS, count_bins, curves, histogram, parts_bar, whisker

EVIL = "<script>alert(1)</script>\"'&"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 5000), max_size=30), st.lists(st.integers(0, 50), max_size=30))
def test_every_value_is_in_its_histogram_once(first, second):
    bins = count_bins({"first": first, "second": second})
    if bins is None:
        assert not first and not second
        return
    assert [sum(counts) for counts in bins.counts.values()] == [len(first), len(second)]
    assert all(len(counts) == BINS for counts in bins.counts.values())
    for name, values in (("first", first), ("second", second)):
        for n, count in enumerate(bins.counts[name][:-1]):
            assert count == sum(n * bins.width <= value < (n + 1) * bins.width for value in values)
    assert bins.longer == (max([*first, *second]) >= bins.width * BINS)


def test_a_histogram_tells_its_medians():
    drawn = str(histogram({"teacher": [1, 2, 9], "student": [5]}, "Characters", "answer"))
    assert "median 2" in drawn and "1 answer from 9" in drawn
    assert 'aria-label="Characters: teacher median 2, longest 9; student median 5, longest 5"' in drawn
    assert histogram({"teacher": []}, "Characters", "answer") is None


@pytest.mark.parametrize("losses", [[2.0, 1.0], [0.0, 0.0], [5.0, 1.0] * 40_000])
def test_curves_stay_inside_their_drawing(losses):
    drawn = str(curves({"training": list(enumerate(losses)), EVIL: [(0, 1.0), (len(losses) - 1, 3.0)]}))
    assert len(drawn) < 60_000, "a long curve is thinned out"
    assert EVIL not in drawn and "&lt;script&gt;" in drawn
    paths = re.findall(r' d="([^"]*)"', drawn)
    assert len(paths) == 3
    for path in paths:
        pairs = re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)
        assert all(0 <= float(x) <= 720 and 0 <= float(y) <= 240 for x, y in pairs)


def test_a_curve_needs_two_points():
    assert curves({"training": [(1, 2.0)]}) is None and curves({}) is None
    assert "training from 2.000 to 1.000" in str(curves({"training": [(1, 2.0), (2, 1.0)]}))


@pytest.mark.parametrize(("better", "side"), [("higher", 1), ("lower", -1)])
def test_to_the_right_is_better(better, side):
    drawn = str(whisker(-2.0, -3.0, -1.0, better, True, "chrF"))
    (dot,) = re.findall(r'cx="([-\d.]+)"', drawn)
    assert float(dot) * side < 0 and "hollow" not in drawn
    assert "hollow" in str(whisker(-2.0, -3.0, 1.0, better, False, ""))
    assert "hollow" in str(whisker(0.0, None, None, better, False, "")), "no change and no interval"


def test_parts_fill_their_bar():
    drawn = str(
        parts_bar({"student": 3, "neither": 0, "base": 1}, {"student": "blue", "neither": "line", "base": "grey"})
    )
    assert re.findall(r'width="([\d.]+)" height="4"', drawn) == ["75.0", "0.0", "25.0"]
    assert parts_bar({"student": 0}, {"student": "blue"}) is None
