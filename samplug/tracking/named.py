"""Memory policies by their names."""

from __future__ import annotations

from collections.abc import Callable

from samplug.tracking.distractors import Distractors, Hybrid
from samplug.tracking.motion import Motion
from samplug.tracking.policies import Policy, PresenceGate, Reference

POLICIES: dict[str, Callable[[], Policy]] = {
    "reference": Reference,
    "presence": PresenceGate,
    "motion": Motion,
    "distractors": Distractors,
    "hybrid": Hybrid,
}


def policy_of(given: str | Callable[[], Policy] | None) -> Callable[[], Policy]:
    """The maker of policies that is meant: by its name, itself, or None for the reference rule.

    Raises:
        ValueError: there is none of that name.
    """
    if given is None:
        return Reference
    if not isinstance(given, str):
        return given
    if given not in POLICIES:
        raise ValueError(f"policy={given!r}: give one of {', '.join(map(repr, POLICIES))}, or a class of yours.")
    return POLICIES[given]
