"""Object tracking: what is kept of objects, and which of it a frame is conditioned on."""

from samplug.tracking.bank import MemoryBank, MemoryEntry
from samplug.tracking.policies import POLICIES, Distractors, Hybrid, Motion, PresenceGate, policy_of
from samplug.tracking.policies.base import Kept, Policy, Reference, Rule
from samplug.tracking.track import Track
from samplug.tracking.tracker import Objects, Tracker

__all__ = ["POLICIES", "Distractors", "Hybrid", "Kept", "MemoryEntry", "MemoryBank", "Motion", "Objects", "Policy"]
__all__ += ["PresenceGate", "Reference", "Rule", "Track", "Tracker", "policy_of"]
