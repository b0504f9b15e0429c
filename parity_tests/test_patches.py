"""A convolution as patches times a matrix: values and gradients equal XLA's; only a CPU uses it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import long_after

from jaxsched.examples import patches

NHWC = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

# Image, kernel, strides, padding: those of the ResNet on digits, and others.
SHAPES = {
    "1 × 1, stride 1": ((5, 1, 1, 32), (3, 3, 32, 16), (1, 1), [(1, 1), (1, 1)]),
    "2 × 2, stride 1": ((5, 2, 2, 32), (3, 3, 32, 16), (1, 1), [(1, 1), (1, 1)]),
    "2 × 2, stride 2": ((5, 2, 2, 32), (3, 3, 32, 16), (2, 2), [(1, 1), (1, 1)]),
    "4 × 4, stride 2": ((5, 4, 4, 32), (3, 3, 32, 16), (2, 2), [(1, 1), (1, 1)]),
    "shortcut": ((5, 4, 4, 32), (1, 1, 32, 16), (2, 2), [(0, 0), (0, 0)]),
    "not square": ((5, 2, 1, 8), (3, 5, 8, 16), (1, 1), [(1, 1), (2, 2)]),
    "uneven": ((5, 4, 5, 8), (2, 3, 8, 16), (3, 2), [(1, 0), (0, 1)]),
    "gap": ((5, 1, 1, 8), (3, 3, 8, 16), (2, 2), [(2, 2), (2, 2)]),
    "one axis": ((5, 6, 8), (3, 8, 16), (2,), [(1, 1)]),
}
LEFT_TO_XLA = {
    "larger": ((5, 4, 4, 8), (3, 3, 8, 8), (1, 1), [(1, 1), (1, 1)], {}),
    "dilated": ((5, 4, 4, 8), (2, 2, 8, 8), (1, 1), [(0, 0), (0, 0)], {"rhs_dilation": (2, 2)}),
    "groups": ((5, 2, 2, 8), (3, 3, 4, 8), (1, 1), [(1, 1), (1, 1)], {"feature_group_count": 2}),
    "by name": ((5, 2, 2, 8), (3, 3, 8, 8), (1, 1), "SAME", {}),
    "wide padding": ((5, 1, 1, 8), (1, 1, 8, 8), (2, 2), [(1, 1), (1, 1)], {}),
}
# A sum of at most 3 × 3 × 32 products in another order: some roundings of its largest value.
ROUNDINGS = 8


def value_and_gradients(conv, shapes, options, dtype):
    x, kernel, strides, padding = shapes
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.standard_normal(shape), dtype) for shape in (x, kernel)]
    conv = functools.partial(conv, **options)
    y, pull = jax.vjp(jax.jit(lambda x, k: conv(x, k, strides, padding)), *arrays)
    return [y, *pull(jnp.asarray(rng.standard_normal(y.shape), dtype))]


def distance(mine, theirs, dtype):
    """Return the largest distance, in roundings of the largest value."""
    assert [a.dtype for a in mine] == [b.dtype for b in theirs] == [dtype] * 3
    return max(
        float(abs(a - b).max() / abs(b).max()) / np.finfo(dtype).eps
        for a, b in zip(mine, theirs, strict=True)
    )


@pytest.mark.parametrize("dtype", long_after(1, ["float32", "float64"]))
@pytest.mark.parametrize("name", long_after(4, SHAPES))
def test_values_and_gradients_equal_those_of_xla(name, dtype, x64):
    letters = "NHC HIO NHC" if name == "one axis" else "NHWC HWIO NHWC"
    options = {"dimension_numbers": tuple(letters.split())}
    mine = value_and_gradients(patches.conv_general_dilated, SHAPES[name], options, dtype)
    theirs = value_and_gradients(jax.lax.conv_general_dilated, SHAPES[name], options, dtype)
    assert distance(mine, theirs, dtype) <= ROUNDINGS


def test_a_padding_on_the_other_side_is_found(x64):
    x, kernel, strides, _ = SHAPES["2 × 2, stride 2"]
    mine, theirs = (
        value_and_gradients(conv, (x, kernel, strides, padding), NHWC, "float64")
        for conv, padding in (
            (patches.conv_general_dilated, [(0, 1), (0, 1)]),
            (jax.lax.conv_general_dilated, [(1, 0), (1, 0)]),
        )
    )
    assert distance(mine, theirs, "float64") > 1e10


def program(shapes, options, platform):
    x, kernel, strides, padding = shapes
    conv = functools.partial(
        patches.conv_general_dilated, strides=strides, padding=padding, **NHWC, **options
    )
    like = [jax.ShapeDtypeStruct(shape, "float32") for shape in (x, kernel)]
    gradients = jax.jit(jax.grad(lambda x, k: conv(x, k).sum(), (0, 1)))
    return gradients.trace(*like).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("name", ["1 × 1, stride 1", "4 × 4, stride 2", "shortcut"])
def test_patches_are_for_a_cpu_alone(name):
    assert "stablehlo.convolution" not in program(SHAPES[name], {}, "cpu")
    for other in ("cuda", "tpu"):
        text = program(SHAPES[name], {}, other)
        assert "stablehlo.convolution" in text
        assert "stablehlo.concatenate" not in text


@pytest.mark.parametrize("name", LEFT_TO_XLA)
def test_the_rest_is_left_to_xla(name):
    *shapes, options = LEFT_TO_XLA[name]
    text = program(shapes, options, "cpu")
    assert "stablehlo.convolution" in text
    assert "stablehlo.dot_general" not in text
