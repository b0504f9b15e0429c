"""Short forms of the long checks in ``benchmarks``, and tests that these can fail."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import compiled_update, fuzz, soak, timing, updates
from jaxsched import Trace


def test_fuzz():
    assert fuzz.run(60)["neither right nor refused"] == []


REFUSED = [
    (fuzz.checkpoint, 940),  # Orbax reads the metadata already when its manager is made
    (fuzz.limit, 24),  # a small file, and a large limit
]


@pytest.mark.parametrize(("kind", "seed"), REFUSED, ids=[kind.__name__ for kind, _ in REFUSED])
def test_what_a_long_run_found_is_refused(kind, seed, tmp_path):
    assert fuzz.outcome(kind, seed, tmp_path) == "refused"


def silently_wrong(rng, folder):
    fuzz.assert_near(np.float32(0.1), 0.2)


def from_the_depths(rng, folder):
    np.zeros(3).reshape(2)


def two_lines(rng, folder):
    Trace({"all": {"a\nb": np.zeros((2, 2))}})


WRONG = [
    (silently_wrong, "wrong: 0.1 in force, expected np.float32(0.2)"),
    (from_the_depths, "from a library, test_benchmarks.py: ValueError: cannot reshape"),
    (two_lines, "no sentence: 'all/a\\nb must be"),
]


@pytest.mark.parametrize(("kind", "outcome"), WRONG, ids=[kind.__name__ for kind, _ in WRONG])
def test_a_case_neither_right_nor_refused_is_reported(kind, outcome, tmp_path):
    assert fuzz.outcome(kind, 0, tmp_path).replace("np.float32(0.1)", "0.1").startswith(outcome)


def test_a_mutated_trace_read_as_another_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "mutate", lambda data, rng: data)
    assert fuzz.outcome(fuzz.trace, 0, tmp_path) == "right"
    monkeypatch.setattr(Trace, "load", classmethod(lambda cls, path: Trace({})))
    assert fuzz.outcome(fuzz.trace, 0, tmp_path) == "wrong: another trace was read without an error"


def outcomes(kind, folder):
    return {fuzz.outcome(kind, seed, folder) for seed in range(40)}


def test_a_replaced_link_is_reported(tmp_path, monkeypatch):
    assert outcomes(fuzz.output, tmp_path) == {"right", "refused"}
    monkeypatch.setattr("jaxsched._io._target", Path)
    monkeypatch.setattr(fuzz, "DEVICE", tmp_path / "device")  # which would be replaced
    os.mkfifo(fuzz.DEVICE)
    assert "wrong: a link was replaced" in outcomes(fuzz.output, tmp_path)


def test_a_case_that_takes_too_much_memory_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "LARGEST", 0)
    assert fuzz.outcome(fuzz.limit, 3, tmp_path).endswith("bytes were taken")


@pytest.mark.long
def test_soak():
    notes = soak.soak(200)
    assert soak.is_confirmed(notes)
    assert not soak.is_confirmed([*notes, {**notes[-1], "live arrays": 1e6}])
    assert not soak.is_confirmed([*notes, {**notes[-1], "compilations": 2}])
    assert not soak.is_confirmed([*notes, {**notes[-1], "resident MiB": 1e6}])


SMALL = {"layer": {"kernel": (3, 2), "bias": (2,), "scale": (2,)}}


def params_after(times, calls):
    call = updates.make_step(updates.ours("sgd"), SMALL, times)
    for _ in range(calls):
        params, _ = call()
    return jax.tree.leaves(params)


def test_many_updates_in_a_call_are_as_many_updates():
    looped, single, fewer = params_after(3, 1), params_after(1, 3), params_after(1, 2)
    for mine, theirs, wrong in zip(looped, single, fewer, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2**-22)  # two roundings of float32
        assert not np.allclose(mine, wrong, rtol=2**-22, atol=0)


@pytest.mark.parametrize("rule", updates.RULES)
def test_an_update_moves_gradients_parameters_and_state(rule):
    _, (_, params, state) = updates.compile_update(updates.ours(rule), SMALL)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    moments = sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim) / size
    assert updates.ARRAYS_MOVED[rule] == 1 + 2 * (1 + moments)


def test_a_thousand_leaves():
    shapes = jax.tree.leaves(updates.layers(), is_leaf=lambda node: isinstance(node, tuple))
    assert len(shapes) == 1000


def test_a_call_that_measures_itself_is_taken_at_its_word():
    seconds = timing.interleave({"mine": lambda: timing.Elapsed(7), "plain": lambda: 7.0}, 1)
    assert seconds["mine"] == [7.0]
    assert seconds["plain"][0] < 7


def test_a_copy_moves_its_bytes(monkeypatch):
    monkeypatch.setattr(timing, "COPIED", 8)
    call, moved = timing.make_copy(3)
    assert moved == 3 * 2 * 8 * 4
    assert call().tolist() == [3.0] * 8
    assert call().tolist() == [6.0] * 8


LAUNCHES = """HloModule jit_step, is_scheduled=true

%fused (p.0: f32[3]) -> f32[3] {
  %p.0 = f32[3]{0} parameter(0)
  ROOT %twice = f32[3]{0} add(%p.0, %p.0)
}

%body.1 (state: (s32[], f32[3])) -> (s32[], f32[3]) {
  %state = (s32[], f32[3]{0}) parameter(0)
  %k = s32[] get-tuple-element(%state), index=0
  %next = s32[] fusion(%k), kind=kLoop, calls=%fused
  %copy.1 = s32[] copy(%next)
  ROOT %out = (s32[], f32[3]{0}) tuple(%copy.1, %k)
}

%goes_on (state.1: (s32[], f32[3])) -> pred[] {
  %state.1 = (s32[], f32[3]{0}) parameter(0)
  ROOT %less = pred[] fusion(%state.1), kind=kLoop, calls=%fused
}

%called (x.1: f32[3]) -> f32[3] {
  %x.1 = f32[3]{0} parameter(0)
  ROOT %again = f32[3]{0} fusion(%x.1), kind=kLoop, calls=%fused
}

ENTRY %main (x: f32[3]) -> f32[3] {
  %x = f32[3]{0} parameter(0)
  %zero = s32[] constant(0)
  %both = (f32[3]{0}, f32[3]{0}) fusion(%x), kind=kLoop, calls=%fused
  %one = f32[3]{0} get-tuple-element(%both), index=0
  %first = f32[3]{0} call(%one), to_apply=%called
  %begin = (s32[], f32[3]{0}) tuple(%zero, %first)
  %loop = (s32[], f32[3]{0}) while(%begin), condition=%goes_on, body=%body.1, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %last = f32[3]{0} custom-call(%loop), custom_call_target="f"
}
"""


def test_kernels_are_counted_within_calls_and_loops():
    assert compiled_update.launches(LAUNCHES) == {"fusion": 2 + 5 * 2, "copy": 5, "custom-call": 1}
    without = LAUNCHES.replace('"known_trip_count":{"n":"5"}', "")
    assert compiled_update.launches(without) == {"fusion": 2 + 2, "copy": 1, "custom-call": 1}
