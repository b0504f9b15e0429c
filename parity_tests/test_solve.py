"""The solver of numbers, on functions whose answer is known."""

import numpy as np
import pytest

from jaxsched.parity._explain import _solve
from jaxsched.parity._explain._solve import float_grid, solve

ROWS = np.arange(1.0, 9.0)


def is_equal(values, target):
    return values == target


def count_calls(function):
    """Return a function of candidates that records how many it gets at a time."""
    sizes = []

    def evaluate(candidates):
        sizes.append(len(candidates))
        return function(candidates)

    return evaluate, sizes


def powers(numbers):
    """Return a curve of powers of a number, like a step decay."""
    return numbers[:, None] ** ROWS


def test_a_float_is_found_between_two_numbers_of_the_grid():
    for number in (0.123, 0.8765, 3.75e-3):
        target = powers(np.array([number]))[0]
        assert solve(powers, target, float_grid(0.5), is_equal)[0] == number


def test_a_number_of_seventeen_digits_is_found_to_the_bit():
    number = 0.12345678901234568
    target = powers(np.array([number]))[0]
    solutions = solve(powers, target, float_grid(0.5), is_equal)
    assert solutions[0] == number


def test_the_shortest_of_equally_good_numbers_is_first():
    def round_rows(numbers):
        return np.round(numbers[:, None] * ROWS, 2)

    assert (
        solve(round_rows, round_rows(np.array([0.3701]))[0], float_grid(0.5), is_equal)[0] == 0.37
    )


def test_a_number_that_reproduces_more_rows_goes_before_a_shorter_one():
    def step_rows(numbers):
        return np.stack([np.round(numbers, digits) for digits in (1, 1, 2, 3, 4)], 1)

    target = step_rows(np.array([0.2625]))[0]
    solutions = solve(step_rows, target, float_grid(0.5), is_equal)
    assert solutions[0] == 0.2625


def test_no_number_is_returned_if_none_gives_the_target():
    assert solve(powers, np.full(8, -1.0), float_grid(0.5), is_equal) == []
    assert solve(powers, np.full(8, np.nan), float_grid(0.5), is_equal) == []


def test_the_first_rows_are_enough_to_be_returned():
    target = powers(np.array([0.3]))[0]
    target[5:] = -1
    assert solve(powers, target, float_grid(0.5), is_equal)[0] == 0.3


def test_at_most_two_numbers_are_returned():
    def few(numbers):
        return np.ones((len(numbers), 8)) * (numbers[:, None] > 0.1)

    assert len(solve(few, np.ones(8), float_grid(0.5), is_equal)) == _solve.MAX_CELLS == 2


def test_candidates_come_in_blocks_of_one_size():
    evaluate, sizes = count_calls(powers)
    solve(evaluate, powers(np.array([0.123]))[0], float_grid(0.5), is_equal, size=64)
    assert set(sizes) == {64}


def test_a_number_that_changes_nothing_is_not_searched():
    evaluate, sizes = count_calls(lambda numbers: np.zeros((len(numbers), 8)))
    assert solve(evaluate, np.full(8, 0.5), float_grid(0.5), is_equal) == []
    assert len(sizes) == -(-len(float_grid(0.5)) // _solve.CANDIDATES)


@pytest.mark.parametrize("is_rising", [True, False])
def test_a_curve_that_is_not_a_number_at_some_candidates_encloses_nothing_there(is_rising):
    def root(numbers):
        x = numbers if is_rising else 1 - numbers
        with np.errstate(invalid="ignore"):
            return np.sqrt(x[:, None] - 0.25) * ROWS

    target = root(np.array([0.6]))[0]
    assert solve(root, target, float_grid(0.5), is_equal)[0] == 0.6


def test_the_grid_of_floats():
    grid = float_grid(2.0)
    assert (np.diff(grid) > 0).all()
    assert set(np.linspace(0, 1, 101)) <= set(grid)
    assert grid.max() == pytest.approx(2e4)
    assert 2.0 in grid
    # 30 sizes a decade, and 40 distances on either side of the value.
    for k in range(-120, 121):
        assert np.isclose(grid, 2 * 10 ** (k / 30), rtol=1e-12, atol=0).any()
    for far in 2 * np.geomspace(1e-6, 1, 40)[:-1]:
        assert np.isclose(grid, 2 + far, rtol=1e-12, atol=0).any()
        assert np.isclose(grid, 2 - far, rtol=1e-12, atol=0).any()
    # 60 distances below 1.
    below = 1 - grid[(grid > 0.5) & (grid < 1)]
    assert below.min() == pytest.approx(1e-7, rel=1e-6)
    assert (below[:-1] / below[1:]).max() < 1.5
    assert len(grid) <= 241 + 80 + 101 + 60 <= _solve.CANDIDATES
    assert float_grid(-2.0).min() == -4.0
    assert float_grid(0.0).max() == pytest.approx(1e4)
