"""The short forms of the long checks in ``benchmarks``, and that these can fail."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import fuzz, soak
from jaxsched import Trace


def test_fuzz():
    assert fuzz.run(150)["neither right nor refused"] == []


def silently_wrong(rng, folder):
    fuzz.near(np.float32(0.1), 0.2)


def from_the_depths(rng, folder):
    np.zeros(3).reshape(2)


def two_lines(rng, folder):
    Trace({"all": {"a\nb": np.zeros((2, 2))}})


WRONG = [
    (silently_wrong, "wrong: 0.1 acts where np.float32(0.2) is right"),
    (from_the_depths, "from the depths, test_benchmarks.py: ValueError: cannot reshape"),
    (two_lines, "no sentence: 'all/a\\nb must be"),
]


@pytest.mark.parametrize(("kind", "told"), WRONG, ids=[kind.__name__ for kind, _ in WRONG])
def test_what_is_neither_right_nor_refused_is_told(kind, told, tmp_path):
    assert fuzz.outcome(kind, 0, tmp_path).replace("np.float32(0.1)", "0.1").startswith(told)


def test_a_mutated_trace_can_be_told_from_a_whole_one(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "mutated", lambda data, rng: data)
    assert fuzz.outcome(fuzz.trace, 0, tmp_path) == "right"
    monkeypatch.setattr(Trace, "load", classmethod(lambda cls, path: Trace({})))
    assert fuzz.outcome(fuzz.trace, 0, tmp_path) == "wrong: another trace was read without a word"


def test_soak():
    notes = soak.soak(200)
    assert soak.holds(notes)
    assert not soak.holds([*notes, {**notes[-1], "live arrays": 1e6}])
    assert not soak.holds([*notes, {**notes[-1], "compilations": 2}])
    assert not soak.holds([*notes, {**notes[-1], "resident MiB": 1e6}])
