"""Memory policies by their names: which mask an object takes, which frames it remembers and attends to.

A new one is a file in this folder and a line here.
"""

from __future__ import annotations

from collections.abc import Callable

from samplug.errors import shown
from samplug.tracking.policies.base import Policy, PresenceGate, Reference
from samplug.tracking.policies.distractors import Distractors
from samplug.tracking.policies.hybrid import Hybrid
from samplug.tracking.policies.motion import Motion

POLICIES: dict[str, Callable[[], Policy]] = {
    "reference": Reference,
    "presence": PresenceGate,
    "motion": Motion,
    "distractors": Distractors,
    "hybrid": Hybrid,
}


def policy_of(given: str | Callable[[], Policy] | None) -> Callable[[], Policy]:
    """The policy class of a name, or the callable itself; None is the reference rule.

    ValueError if there is no policy of that name, or the callable makes none.
    """
    if given is None:
        return Reference
    if not isinstance(given, str):
        methods, expected = ("choose", "observe", "select", "keep"), "a class derived from samplug.tracking.Policy"
        try:
            made = given()
        except TypeError as error:
            raise ValueError(f"policy={shown(given)} cannot be called ({error}): give {expected}.") from error
        if absent := [name for name in methods if not callable(getattr(made, name, None))]:
            raise ValueError(f"policy={given!r} makes no policy, without {', '.join(absent)}: give {expected}.")
        return given
    if given not in POLICIES:
        raise ValueError(f"policy={given!r}: give one of {', '.join(map(repr, POLICIES))}, or a class of yours.")
    return POLICIES[given]
