"""Wrong ports of recorded torch runs, with the slips of each.

**How they were made.** They were written from the README, the pages in ``docs`` and the docstrings
alone, without a look at the code that names causes or at its tests. ``record.py`` holds training
scripts in torch, ``recordings`` the hyperparameters in force in them. ``seen.py`` and ``aside.py``
hold the ports: recipes, schedules of ``lr_scheduler`` and of Optax, functions in ``jnp``, Optax
transformations that were run, rows that a loop logged. Each has one typical slip, or two, or none.
They were divided between the two files at random within each recording, so that both have as many
of each kind and style. ``seen.py`` is used for work on the causes. ``aside.py`` is looked at once,
when that work is finished, to report how many of its slips are named; causes are not changed for
it. ``fresh.py`` was written later, in the same way, and looked at after the causes had been
rewritten.

An answer that was added after a report had been read, because it is another name of the slip, is
marked "added".

**The meaning of ``expected``.** A port's ``expected`` has an entry for each independent slip, in any
order; no entry means that the port is correct. An entry lists alternatives that the data cannot
distinguish; each is an acceptable answer. An alternative is a dictionary with ``kind`` and
``name``, and optionally ``mine`` and ``reference``, the values of the port and of the script, and
``since``, the first iteration from which the slip acts, or may act: nothing differs before it. The
kinds:

- ``argument``: another value of an argument of a factory, an update rule or a group. The script's
  own word for it is an alternative if it has one. Without numbers it has no single value.
- ``clock``: the port counts differently. ``shift``: mine(i) = reference(i + k), where ``mine`` is k.
  ``stretch``: mine(i) = reference(i k), where ``mine`` is k, a whole number or one over it; the
  port may change at whole counts only, or read the reference at the last of k counts.
  ``per epoch``: mine changes by epoch where the reference changes by iteration;
  ``per iteration``: the reverse.
  ``reset``: mine begins again at an iteration, as a whole or in a part that the note
  names. ``stopped``: mine is constant from an iteration on; if the note says "the reverse", the
  reference is constant there and mine continues. A shift holds where both counts are recorded.
- ``value``: ``factor``, ``addend``, ``floor``, ``cap``, ``decimals`` (their number is ``mine``),
  ``bfloat16``, ``float32``: the change of each value of the reference.
- ``groups``: ``exchanged``, ``merged`` (all as one), ``unscheduled`` (constant where the reference
  varies), ``taken from`` (a group has the value of another).
- ``rule``: ``name`` is the rule of the port, an update rule or the rule of a schedule, such as
  ``linear`` for a cosine.

A note that begins with "float32" says that the port also computes in float32: a report may name
that or leave it out.

``determined`` is true if the answer can be found: a recipe of the package states the argument,
or the two curves determine the change. It is false if numbers inside an opaque function differ from
those of the recorded script, or if one shape of curve was taken for another: these are counted
separately.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxsched import Recipe, Trace, hyperparameters

RECORDINGS = Path(__file__).parent / "recordings"

LOSSES = (
    *(2.0, 1.6, 1.3, 1.1, 1.0, 0.95, 0.96, 0.97, 0.96, 0.8),
    *(0.75, 0.72, 0.73, 0.72, 0.74, 0.68, 0.65, 0.66, 0.67, 0.66),
    *(0.67, 0.66, 0.67, 0.6, 0.61, 0.62, 0.63, 0.61, 0.6, 0.6),
)
"""Validation losses at the end of each epoch of the script ``plateau`` in ``record.py``."""

Alternative = dict[str, Any]

KINDS = {
    "argument": None,  # any name
    "clock": {"shift", "stretch", "per epoch", "per iteration", "reset", "stopped"},
    "value": {"factor", "addend", "floor", "cap", "float32", "bfloat16", "decimals"},
    "groups": {"exchanged", "merged", "unscheduled", "taken from"},
    "rule": None,  # any name
}
"""The names of each kind of slip."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A port, the recording that it is compared with, and the slips that it has.

    Attributes:
      name: the name of the port, which describes its slip.
      recording: the stem of a file in ``recordings``.
      mine: a function that returns the port, a recipe or a trace.
      expected: for each slip, the acceptable answers; empty if the port is correct.
      determined: true if the slip can be found from the two sides.
      iterations: how many rows of the recording are compared; all of them if None.
      labels: new names for groups of the recording, ``{old: new}``.
      note: further information.
    """

    name: str
    recording: str
    mine: Callable[[], Recipe | Trace]
    expected: tuple[tuple[Alternative, ...], ...]
    determined: bool
    iterations: int | None = None
    labels: Mapping[str, str] | None = None
    note: str = ""

    def reference(self) -> Trace:
        """Return the rows of the recording that are compared, under the port's labels."""
        trace = Trace.load(RECORDINGS / f"{self.recording}.npz")
        if self.labels is not None:
            trace = trace.relabel(self.labels)
        return trace if self.iterations is None else trace.head(self.iterations)


def case(recording, *slips, determined=True, **details):
    """Return a decorator that turns a function into a ``Case``.

    Args:
      recording: the name of the recording.
      slips: for each slip an alternative, or a tuple of alternatives.
      determined: as in ``Case``.
      details: ``iterations``, ``labels`` and ``note``.
    """
    expected = tuple(slip if isinstance(slip, tuple) else (slip,) for slip in slips)
    return lambda mine: Case(mine.__name__, recording, mine, expected, determined, **details)


def _alternative(kind, name, mine, reference, since) -> Alternative:
    values = {"mine": mine, "reference": reference, "since": since}
    return {"kind": kind, "name": name} | {k: v for k, v in values.items() if v is not None}


def argument(name, mine=None, reference=None, since=None):
    return _alternative("argument", name, mine, reference, since)


def clock(name, mine=None, since=None):
    return _alternative("clock", name, mine, None, since)


def value(name, mine=None, since=None):
    return _alternative("value", name, mine, None, since)


def groups(name):
    return _alternative("groups", name, None, None, None)


def rule(name):
    return _alternative("rule", name, None, None, None)


def log_updates(tx, updates, params=None):
    """Update with an Optax transformation and return the trace of its hyperparameters.

    Args:
      tx: a transformation with ``optax.inject_hyperparams`` in it.
      updates: how many updates.
      params: the parameters; one array if not given.
    """
    params = {"w": jnp.ones(2)} if params is None else params
    update = jax.jit(tx.update)
    state, rows = tx.init(params), []
    for _ in range(updates):
        _, state = update(params, state, params)
        rows.append(jax.device_get(hyperparameters(state)))
    return log_rows(rows)


def log_rows(rows):
    """Return the trace of rows that a loop logged, one an update."""
    return dataclasses.replace(Trace.stack(rows), clock="update")
