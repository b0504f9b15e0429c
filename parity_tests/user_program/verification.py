"""A user's verification, run by pytest: recipes compared with the original's own run."""

import dataclasses
from pathlib import Path

import pytest

import jaxsched
from jaxsched import recipes
from jaxsched.testing import assert_matches


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "original.npz"
    recipes.recorded("yolov5_resnet18").save(path)
    return path


def test_my_recipe_is_the_original(recording: Path) -> None:
    assert_matches(recipes.yolov5_resnet18(), recording)


@pytest.mark.parametrize(("momentum", "found"), [(0.937, False), (0.9, True)])
def test_another_momentum_is_found(momentum: float, found: bool) -> None:
    mine = recipes.yolov5_resnet18(momentum=momentum)
    report = jaxsched.compare(mine, recipes.recorded("yolov5_resnet18"))
    assert bool(report) is not found
    causes: list[str] = list(report.causes)
    assert bool(causes) is found
    different = [quantity for quantity in report.quantities if quantity.first is not None]
    assert bool(different) is found
    assert dataclasses.replace(mine, start=30).start == 30
