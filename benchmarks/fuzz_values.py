"""The values that ``fuzz`` draws: damaged data, odd arguments, and trees."""

import json
import math
import random
from typing import Any

import jax.numpy as jnp
import numpy as np
import yaml


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Cut the data, or change, insert, delete or repeat bytes."""
    data, where = bytearray(data), rng.randrange(len(data) or 1)
    for _ in range(rng.choice((1, 1, 1, 3, 20))):
        where = rng.randrange(len(data) or 1)
        match rng.randrange(6):
            case 0:
                data = data[:where]
            case 1:
                data[where : where + 1] = bytes([rng.randrange(256)])
            case 2:
                data[where:where] = rng.randbytes(rng.randrange(1, 9))
            case 3:
                del data[where : where + rng.randrange(1, 99)]
            case 4:
                data[where:where] = data[where : where + rng.randrange(1, 99)]
            case _:
                data[where : where + 4] = bytes(4)
    return bytes(data)


def nest(value: Any, depth: int) -> Any:
    """Nest ``value`` in lists that each hold the inner list nine times."""
    for _ in range(depth):
        value = [value] * 9
    return value


ODD = [
    -1,
    0,
    1,
    2,
    7,
    0.5,
    -0.5,
    1e-30,
    1e30,
    math.nan,
    math.inf,
    True,
    None,
    "3",
    "",
    [],
    {},
    10**400,
]
ODD += ["x" * 3000, [0.5] * 3000, {str(k): k for k in range(999)}, nest("word", 5)]
ODD += [np.float32(0.1), np.int64(3), np.array([1.0, 2.0]), 2**31, 1j, b"1", lambda i: i, object()]


def is_json(value: Any) -> bool:
    """Return true if a file of JSON or YAML can hold the value."""
    return isinstance(value, int | float | str | list | dict | None) and value != 10**400


def replace_value(content: dict[str, Any], rng: random.Random, suffix: str) -> str:
    """Return the file's text with one value, at any depth, replaced by an odd one."""
    inner = content
    while isinstance(inner[name := rng.choice([*inner])], dict) and rng.random() < 0.9:
        inner = inner[name]
    inner[name] = rng.choice([v for v in ODD if is_json(v)])
    return json.dumps(content) if suffix == ".json" else yaml.safe_dump(content)


def draw_tree(rng: random.Random, depth: int = 0) -> Any:
    """Draw a tree of arrays of several dtypes and shapes, with odd leaves among them."""
    dtypes = (
        jnp.float32,
        jnp.float32,
        jnp.bfloat16,
        jnp.float16,
        jnp.int32,
        jnp.bool_,
        jnp.complex64,
    )
    kind = rng.randrange(4 if depth < 3 else 1)
    if kind == 0 or rng.random() < 0.1:
        shape = rng.choice(((), (1,), (3,), (2, 3), (0,), (2, 0, 1)))
        odd = (None, 1.0, 2, "text", object(), np.ones(2, np.float64))
        return rng.choice(odd) if rng.random() < 0.1 else jnp.ones(shape, rng.choice(dtypes))
    if kind == 1:
        return [draw_tree(rng, depth + 1) for _ in range(rng.randrange(3))]
    names = ("kernel", "bias", "scale", "bn1", "conv", "0", "a/b", "a.b", "", "frozen")
    return {name: draw_tree(rng, depth + 1) for name in rng.sample(names, rng.randrange(1, 4))}
