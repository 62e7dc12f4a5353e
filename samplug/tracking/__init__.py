"""Objects followed through a stream: what is kept of them, and which of it is looked back at."""

from samplug.tracking.bank import Lesson, MemoryBank
from samplug.tracking.distractors import Distractors, Hybrid
from samplug.tracking.motion import Motion
from samplug.tracking.named import POLICIES, policy_of
from samplug.tracking.policies import Kept, Policy, PresenceGate, Reference, Rule
from samplug.tracking.tracker import Objects, Tracker
from samplug.tracking.tracks import Track

__all__ = [
    "POLICIES",
    "Distractors",
    "Hybrid",
    "Kept",
    "Lesson",
    "MemoryBank",
    "Motion",
    "Objects",
    "Policy",
    "PresenceGate",
    "Reference",
    "Rule",
    "Track",
    "Tracker",
    "policy_of",
]
