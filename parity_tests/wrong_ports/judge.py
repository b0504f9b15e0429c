"""Judge the causes that a report names by the slips that a port has."""

import math

from jaxsched.parity import Report


def matches(cause, alternative):
    """Return true if a cause, or another that the data cannot distinguish from it, is the alternative."""
    return any(_is(c, alternative) for c in (cause, *cause.alternatives))


def _is(cause, alternative):
    if (cause.kind, cause.name) != (alternative["kind"], alternative["name"]):
        return False
    for side in ("mine", "reference"):
        expected, value = alternative.get(side), getattr(cause, side)
        if expected is not None and value is not None and not _same(value, expected):
            return False
    since = alternative.get("since")
    return since is None or cause.start in (None, since)


def _same(a, b):
    if isinstance(a, (tuple, list)) or isinstance(b, (tuple, list)):
        return tuple(a) == tuple(b)
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return math.isclose(a, b, rel_tol=1e-6)
    return a == b


def judge(case, report: Report) -> str:
    """Return "right", "none" or "wrong"."""
    if not case.expected:
        return "right" if report else "wrong"
    causes = list(report.explanations)
    if not causes:
        return "none"
    causes = [part for cause in causes for part in (cause.parts or (cause,))]
    first = list({(c.kind, c.name, str(c.mine)): c for c in reversed(causes)}.values())
    first = first if len(first) <= len(case.expected) else causes[: len(case.expected)]
    ok = all(any(matches(c, a) for c in first for a in slip) for slip in case.expected)
    return "right" if ok else "wrong"
