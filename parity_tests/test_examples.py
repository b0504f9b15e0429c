"""The examples run unchanged, and stay short."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxsched import examples
from jaxsched.examples import digits

FOLDER = Path(examples.__file__).parent
PARITY = [
    "parity: 60 iterations × 3 groups × learning rate, momentum, weight decay: 0 ULP",
    "not compared, only on one side: dampening, update_rule, nesterov",
]


@pytest.mark.long
@pytest.mark.parametrize("name", ["train_nnx", "train_linen"])
def test_example_runs_unchanged(name):
    done = subprocess.run(
        [sys.executable, "-m", f"jaxsched.examples.{name}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == PARITY


@pytest.mark.long
@pytest.mark.parametrize("name", ["plateau_linen", "plateau_nnx"])
def test_the_plateau_is_stepped_outside_of_the_update(name):
    done = subprocess.run(
        [sys.executable, "-m", f"jaxsched.examples.{name}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.endswith("times, as the scheduler alone")
    assert not last.startswith("reduced 0")


@pytest.mark.parametrize(
    "name", ["train_nnx", "train_linen", "plateau_linen", "plateau_nnx", "digits"]
)
def test_example_is_short(name):
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) < 100


def test_digits_are_split_and_shuffled_by_seed():
    training, test = digits.load(size=8)
    assert (training.images.shape, test.images.shape) == ((600, 8, 8, 3), (1197, 8, 8, 3))
    assert set(test.labels) == set(training.labels) == set(range(10))
    again, other = digits.load(size=8)[0], digits.load(size=8, seed=1)[0]
    assert (again.labels == training.labels).all()
    assert (other.labels != training.labels).any()


def test_an_epoch_sees_every_image_once():
    data = digits.Digits(np.arange(600), np.arange(600))
    batches = list(digits.batches(data, 2))
    assert len(batches) == 2 * digits.STEPS_PER_EPOCH
    epochs = np.reshape([batch.labels for batch in batches], (2, 600))
    assert (np.sort(epochs) == np.arange(600)).all()
    assert (epochs[0] != epochs[1]).any()
