"""Why an Optax transformation and a torch optimizer part: the usual mistakes, each tried.

A mistake is a sentence and where the parameters would go with it made. It is told where
that is where the transformation's go, after every update. A rule treats each parameter by
itself, so a mistake may be made in some of them only. Everything here counts updates, and
0 is the first, but for ``Case.iterations``.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxsched import optimizers
from jaxsched.torch._wrong_rules import Build, Form, right

Arrays = dict[str, np.ndarray]
"""``{leaf: array (updates, …)}``: gradients, or the parameters after each update."""

Numbers = dict[str, Any]
"""``{argument: array (updates,)}`` of one leaf; a switch is what it is."""

SHARE = 1e-10
"""Of the largest difference so far: what a mistake may leave of it, where that is more
than the bound. Schedules in closed form are 1e-11 from torch's recursion."""

PLAIN = 20
"""Bounds: how large a difference must be to tell one mistake from another."""

SHAPED = (optimizers.muon, optimizers.adafactor)
"""Rules that look at a parameter's entries together; the others take each by itself."""

SAMPLED = 64
"""Entries of a parameter that a mistake is tried on, where each goes by itself."""


class Mistake(NamedTuple):
    """A usual mistake: the reference's recipe with one piece of it changed.

    Attributes:
      sentence: what it is, as one says it of the transformation. What stands before its
        colon is its kind: of a kind one is told.
      build: the rule that is wrong; None for the reference's.
      numbers: from a leaf and its arguments to what they are with the mistake made, or to
        None where it cannot be made in that leaf; None for the reference's.
      gradients: those that reach the rule; None for the reference's.
    """

    sentence: str
    build: Build | Form | None = None
    numbers: Callable[[str, Numbers], Numbers | None] | None = None
    gradients: Callable[[], Arrays] | None = None

    @property
    def kind(self) -> str:
        """What it is, without the values."""
        return self.sentence.partition(":")[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """Two runs that part, and what is known of torch's.

    Attributes:
      start: the parameters before the first update, ``{leaf: array}``. Here and below,
        of each leaf those entries that are looked at.
      batches: the gradients, ``{leaf: array (updates, accumulation, …)}``.
      squares: the sum of the squares of all entries of each of those, (updates, accumulation),
        and, behind them, of their sum: ``{leaf: array (updates, accumulation + 1)}``.
      mine: where the transformation's parameters go.
      reference: where torch's go.
      labels: the label of each leaf that torch's optimizer trains.
      rule: torch's update rule.
      rows: what torch's groups say after 0, 1, 2, … steps of the scheduler,
        ``{label: {argument: value}}``.
      steps_per_epoch: batches between two of them.
      clip_norm: the most that the norm of all gradients may be; None where it may be any.
      bound: what a leaf may be off, in parts of its largest entry.
    """

    start: Arrays
    batches: Arrays
    squares: Arrays
    mine: Arrays
    reference: Arrays
    labels: Mapping[str, str]
    rule: Callable[..., optax.GradientTransformation]
    rows: Sequence[Mapping[str, Mapping[str, Any]]]
    steps_per_epoch: int
    clip_norm: float | None
    bound: float

    @property
    def updates(self) -> int:
        """How many both made."""
        return len(next(iter(self.batches.values())))

    @property
    def accumulation(self) -> int:
        """Batches in an update."""
        return next(iter(self.batches.values())).shape[1]

    @functools.cached_property
    def iterations(self) -> np.ndarray:
        """The batch after which each update is made, 0 the first."""
        return (np.arange(self.updates) + 1) * self.accumulation - 1

    def numbers(self, label: str, steps: np.ndarray | None = None) -> Numbers:
        """The arguments of a group's rule.

        Args:
          label: of the group.
          steps: those that the scheduler has made at each update; those of the reference
            if not given. Where its run ends it holds.
        """
        steps = self.iterations // self.steps_per_epoch if steps is None else steps
        taken = np.clip(steps, 0, len(self.rows) - 1)
        parameters = inspect.signature(self.rule).parameters
        return {
            name: np.array([self.rows[step][label][name] for step in taken], np.float64)
            if isinstance(value, float | int)
            and not isinstance(value, bool)
            and parameters[name].annotation is not int
            else value
            for name, value in self.rows[0][label].items()
        }

    @functools.cached_property
    def summed(self) -> Arrays:
        """The gradients of each update, of the leaves that are trained."""
        return {leaf: self.batches[leaf].sum(1) for leaf in self.labels}

    @functools.cached_property
    def sizes(self) -> Arrays:
        """The largest entry that each leaf has had up to each update."""
        first = {leaf: _largest(start[None]) for leaf, start in self.start.items()}
        return {
            leaf: np.maximum.accumulate([*first[leaf], *_largest(path)])[1:]
            for leaf, path in self.reference.items()
        }

    @functools.cached_property
    def differing(self) -> list[str]:
        """The leaves that part."""
        return [leaf for leaf in self.mine if self.apart(leaf, self.mine)]

    def apart(self, leaf: str, path: Arrays) -> bool:
        """Whether a leaf goes elsewhere than the reference's."""
        off = _largest(path[leaf] - self.reference[leaf])
        return not (off <= self.bound * self.sizes[leaf]).all()

    def tells(self, leaf: str) -> bool:
        """Whether a leaf is so far off that mistakes can be told apart by it."""
        off = _largest(self.mine[leaf] - self.reference[leaf])
        return bool((off > PLAIN * self.bound * self.sizes[leaf]).any())

    def reproduced(self, leaf: str, path: Arrays) -> bool:
        """Whether a path is the transformation's, after every update."""
        so_far = np.maximum.accumulate(_largest(self.mine[leaf] - self.reference[leaf]))
        allowed = np.maximum(self.bound * _largest(self.mine[leaf]), SHARE * so_far)
        return bool((_largest(path[leaf] - self.mine[leaf]) <= allowed).all())

    def path(self, mistake: Mistake) -> Arrays:
        """Where the parameters go with a mistake made in all of them."""
        gradients = mistake.gradients() if mistake.gradients else clipped(self, self.summed)
        changed = mistake.numbers or (lambda _, numbers: numbers)
        numbers: dict[str, dict[str, np.ndarray]] = {}
        alike: dict[Any, list[str]] = {}
        path = dict(self.reference)
        for leaf in gradients:
            label = self.labels.get(leaf)
            given = changed(leaf, {} if label is None else self.numbers(label))
            if given is None:
                continue
            numbers[leaf] = {k: v for k, v in given.items() if isinstance(v, np.ndarray)}
            switches = tuple((k, v) for k, v in given.items() if k not in numbers[leaf])
            alike.setdefault((switches, leaf if self.rule in SHAPED else ""), []).append(leaf)
        for (switches, _), leaves in alike.items():
            # The entries of them all side by side, each with the numbers of its leaf.
            sizes = [gradients[leaf].shape[-1] for leaf in leaves]
            start = np.concatenate([self.start[leaf] for leaf in leaves])
            reaching = np.concatenate([gradients[leaf] for leaf in leaves], -1)
            of_entries = dict(numbers[leaves[0]])
            if self.rule not in SHAPED:
                for name in of_entries:
                    columns = [numbers[leaf][name] for leaf in leaves]
                    of_entries[name] = np.repeat(columns, sizes, 0).T
            build = mistake.build or right(self.rule)
            if isinstance(build, Form):
                together = build.path(start, {**of_entries, **dict(switches)}, reaching)
            else:
                run = _compiled(build, switches, self.rule in SHAPED)
                together = run(start, of_entries, reaching)
            parts = np.split(np.asarray(together), np.cumsum(sizes)[:-1], -1)
            path |= dict(zip(leaves, parts, strict=True))
        return path


@functools.lru_cache(maxsize=128)
def _compiled(build: Build, switches: tuple[tuple[str, Any], ...], shaped: bool) -> Any:
    """All updates of a rule in one scan: from start, numbers and gradients to the path.

    The last axis of each is that of the entries, unless ``shaped``: then there is one
    parameter, and numbers have none.
    """

    def run(start: Any, numbers: Any, gradients: Any) -> Any:
        def rule(now: Any) -> optax.GradientTransformation:
            return build({**now, **dict(switches)})

        def update(carry: Any, row: Any) -> Any:
            params, state, (now, gradient) = *carry, row
            added, state = rule(now).update(gradient, state, params)
            return (params + added, state), params + added

        first = rule({name: column[0] for name, column in numbers.items()}).init(start)
        return jax.lax.scan(update, (start, first), (numbers, gradients))[1]

    return jax.jit(run if shaped else jax.vmap(run, -1, -1))


def _largest(path: np.ndarray) -> np.ndarray:
    """The largest entry after each update; NaN where there is one."""
    return np.abs(path).max(tuple(range(1, path.ndim)), initial=0.0)


def clipped(
    case: Case,
    gradients: Arrays,
    squares: Arrays | None = None,
    *,
    together: Callable[[str], Any] = lambda leaf: None,
    most: float | None = None,
) -> Arrays:
    """Gradients (n, …) clipped by torch's rule, as in ``optimizers.clip_grad_norm``.

    Args:
      case: has the norm.
      gradients: to clip.
      squares: ``{leaf: array (n,)}``, the sums whose root is the norm; those of the
        trained leaves, of each update, if not given.
      together: from a leaf to what those have in common whose norm is taken together.
      most: the norm, if it is not the case's.
    """
    most = case.clip_norm if most is None else most
    if most is None:
        return gradients
    sums: dict[Any, Any] = {}
    for leaf, square in (squares or {k: case.squares[k][:, -1] for k in case.labels}).items():
        sums[together(leaf)] = sums.get(together(leaf), 0.0) + square
    scale = {key: np.minimum(1 / (np.sqrt(total) + 1e-6) * most, 1) for key, total in sums.items()}
    return {leaf: scaled(gradient, scale[together(leaf)]) for leaf, gradient in gradients.items()}


def scaled(gradient: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Each of n gradients (n, …) by a factor of its own (n,)."""
    return gradient * factor.reshape(-1, *(1,) * (gradient.ndim - 1))


def entries(array: np.ndarray, shaped: bool) -> np.ndarray:
    """Those of a parameter that are looked at."""
    if shaped:
        return array.copy()
    at = np.unique(np.linspace(0, max(array.size - 1, 0), SAMPLED).astype(int))
    return array.ravel()[at if array.size else []]


def seen_of(
    pending: Sequence[Arrays], mine: Arrays, reference: Arrays, shaped: bool
) -> dict[str, Arrays]:
    """A row of what a ``Case`` has of each update.

    Args:
      pending: the gradients of its batches.
      mine: the transformation's parameters after it.
      reference: torch's.
      shaped: whether the rule is of ``SHAPED``.
    """
    batches = {leaf: [gradients[leaf] for gradients in pending] for leaf in pending[0]}
    return {
        "batches": {k: np.stack([entries(g, shaped) for g in gs]) for k, gs in batches.items()},
        "squares": {
            k: np.array([(g * g).sum() for g in (*gs, np.sum(gs, 0))]) for k, gs in batches.items()
        },
        "mine": {leaf: entries(p, shaped) for leaf, p in mine.items()},
        "reference": {leaf: entries(p, shaped) for leaf, p in reference.items()},
    }


def causes(case: Case, mistakes: Iterable[Mistake]) -> Iterator[str]:
    """The sentences of those that reproduce where every leaf that parts goes.

    Where none does, but each leaf has one of its own, those, with its name. None where
    the recipe without a mistake does not lead where torch's parameters go.
    """
    whole: dict[str, str] = {}
    partial: dict[str, str] = {}
    told: list[Arrays] = []
    right = case.path(Mistake("none"))
    if any(case.apart(leaf, right) for leaf in case.differing):
        return  # of what is not torch's path, as Muon's in bfloat16, nothing follows
    for mistake in mistakes:
        if mistake.kind in whole:
            continue
        path = case.path(mistake)
        made = [leaf for leaf in case.differing if case.reproduced(leaf, path)]
        # Of those that cannot be told apart, since the numbers are the same, one is told.
        again = any(all((path[leaf] == p[leaf]).all() for leaf in made) for p in told)
        if made == case.differing and not again:
            told.append(path)
            spared = [leaf for leaf in path if leaf not in made and case.apart(leaf, path)]
            whole[mistake.kind] = mistake.sentence + (f", in {named(made)}" if spared else "")
        for leaf in made:
            if case.tells(leaf):
                partial.setdefault(leaf, mistake.sentence)
    if whole:
        yield from whole.values()
    elif set(partial) == set(case.differing):
        for sentence in dict.fromkeys(partial.values()):
            leaves = [leaf for leaf in case.differing if partial[leaf] == sentence]
            yield f"{sentence}, in {named(leaves)}; the rest has another cause"


def named(leaves: Sequence[str]) -> str:
    """Some of them, and how many more there are."""
    more = len(leaves) - 5
    return ", ".join(leaves[:5]) + (f" and {more} more" if more > 0 else "")


def shown(value: Any) -> str:
    """A number as one writes it."""
    return f"{float(value):.7g}"
