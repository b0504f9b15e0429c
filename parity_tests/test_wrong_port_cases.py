"""Each of the wrong ports differs from its recording and has the slip that it claims.

No test here uses causes: a claim is checked on the numbers of both sides.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from wrong_ports import KINDS, RECORDINGS, aside, fresh, seen

from jaxsched import Trace, compare

CASES = seen.CASES + aside.CASES + fresh.CASES
CLOSE = 1e-5
"""Relative distance within which curves agree: ports in float32 are 1e-6 off."""


def is_close(mine, reference):
    return np.allclose(mine, reference, rtol=CLOSE, atol=CLOSE * np.abs(reference).max())


def is_shift(mine, reference, k, since):
    rows = np.arange(max(since, -k), len(mine) - max(k, 0))
    return is_close(mine[rows], reference[rows + k])


def is_stretch(mine, reference, k, since):
    steps = np.flatnonzero(np.diff(reference)) + 1
    epoch = max(int(np.gcd.reduce(steps)), 1) if steps.size else 1
    return is_stretch_of(mine, reference, k) or (
        is_stretch_of(mine[::epoch], reference[::epoch], k) and not steps[0] % epoch
    )


def is_stretch_of(mine, reference, k):
    for offset in range(max(int(k), 1)):
        rows = np.arange(len(mine)) * k + offset
        rows = rows[(rows < len(reference)) & (rows == np.floor(rows))].astype(int)
        if is_close(mine[((rows - offset) / k).astype(int)], reference[rows]):
            return True
    return False


def is_reset(mine, reference, k, since):
    return is_close(mine[:since], reference[:since]) and not is_close(
        mine[since:], reference[since:]
    )


def is_stopped(mine, reference, k, since):
    # Also the reverse: the reference is constant where the port continues.
    return any(np.ptp(side[since - 1 :]) == 0 for side in (mine, reference))


CHECKS = {
    "shift": is_shift,
    "stretch": is_stretch,
    "reset": is_reset,
    "stopped": is_stopped,
    "factor": lambda mine, reference, k, since: is_close(mine, reference * k),
    "addend": lambda mine, reference, k, since: is_close(mine, reference + k),
    "floor": lambda mine, reference, k, since: is_close(mine, np.maximum(reference, k)),
    "cap": lambda mine, reference, k, since: is_close(mine, np.minimum(reference, k)),
    "decimals": lambda mine, reference, k, since: is_close(mine, np.round(reference, k)),
    "bfloat16": lambda mine, reference, k, since: is_close(
        mine, np.asarray(jnp.asarray(reference).astype(jnp.bfloat16).astype(jnp.float32))
    ),
    "float32": lambda mine, reference, k, since: is_close(mine, reference),
}
"""Predicates that ``mine`` has a slip of a clock or of values, by the name of the slip."""

WITHOUT_NUMBERS = {"float32", "bfloat16", "reset", "stopped"}


def claims(case):
    """Return the alternatives of clocks and values that the numbers can confirm or refute."""
    return [
        claim
        for slip in case.expected
        for claim in slip
        if claim["kind"] in ("clock", "value") and claim["name"] in CHECKS
        if "mine" in claim or claim["name"] in WITHOUT_NUMBERS
    ]


def test_the_files_are_of_a_size_and_share_no_case():
    assert min(len(seen.CASES), len(aside.CASES), len(fresh.CASES)) >= 36
    assert len({case.name for case in CASES}) == len(CASES)
    for cases in (seen.CASES, aside.CASES, fresh.CASES):
        assert sum(not case.expected for case in cases) >= 4
        assert {case.recording for case in cases} == {
            path.stem for path in RECORDINGS.glob("*.npz")
        }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_expectations_are_well_formed(case):
    for slip in case.expected:
        assert slip
        for alternative in slip:
            assert alternative.keys() <= {"kind", "name", "mine", "reference", "since"}
            names = KINDS[alternative["kind"]]
            assert names is None or alternative["name"] in names


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_port_has_the_slips_that_it_claims(case):
    report = compare(case.mine(), case.reference())
    is_equal = bool(report)
    assert is_equal == (not case.expected)

    differing = [q for q in report.quantities if q.first and not (q.is_setting or q.is_one_sided)]
    firsts = [q.first.iteration for q in differing]
    sinces = [claim["since"] for slip in case.expected for claim in slip if "since" in claim]
    if len(case.expected) == 1 and sinces:
        assert min(sinces) <= min(firsts)
    if len(case.expected) > 1:
        return  # one slip may cover the other
    columns = [
        [
            np.asarray(side.groups[q.label][q.name], float)
            for side in (report.mine, report.reference)
        ]
        for q in differing
    ]
    for claim in claims(case):
        check, k, since = CHECKS[claim["name"]], claim.get("mine"), claim.get("since", 0)
        confirmed = [check(mine, reference, k, since) for mine, reference in columns]
        assert any(confirmed), claim


@pytest.fixture
def one_thread():
    """Run torch on one thread, because networks this small take longer on more."""
    torch = pytest.importorskip("torch", reason="the scripts are in torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.torch
@pytest.mark.usefixtures("one_thread")
def test_the_scripts_reproduce_the_recordings():
    from wrong_ports import record

    assert set(record.SCRIPTS) == {path.stem for path in RECORDINGS.glob("*.npz")}
    for name, script in record.SCRIPTS.items():
        written = Trace.load(RECORDINGS / f"{name}.npz")
        stated = {"versions": written.versions, "closed": written.closed}
        is_equal = dataclasses.replace(script(), **stated) == written
        assert is_equal, name
