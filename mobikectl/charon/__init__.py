"""charon over VICI: the session, the model of its SAs, its commands, and what kind of daemon it is."""

from mobikectl.charon.daemon import Daemon, EspPath
from mobikectl.charon.sa_events import (
    ChildDown,
    ChildRekeyed,
    ChildUp,
    Difference,
    PeerUnresponsive,
    Retransmit,
    SaDown,
    SaEvent,
    SaEventsDropped,
    SaModelResynced,
    SaPathChanged,
    SaPortsChanged,
    SaRekeyed,
    SaUp,
)
from mobikectl.charon.session import (
    DEFAULT_SOCKET,
    Backoff,
    Event,
    EventGap,
    EventLost,
    LinkState,
    Session,
    Status,
)
from mobikectl.charon.tracker import SaFeed, SaTracker, TrackerConfig
from mobikectl.charon.transport import Message

__all__ = [
    "DEFAULT_SOCKET",
    "Backoff",
    "ChildDown",
    "ChildRekeyed",
    "ChildUp",
    "Daemon",
    "Difference",
    "EspPath",
    "Event",
    "EventGap",
    "EventLost",
    "LinkState",
    "Message",
    "PeerUnresponsive",
    "Retransmit",
    "SaDown",
    "SaEvent",
    "SaEventsDropped",
    "SaFeed",
    "SaModelResynced",
    "SaPathChanged",
    "SaPortsChanged",
    "SaRekeyed",
    "SaTracker",
    "SaUp",
    "Session",
    "Status",
    "TrackerConfig",
]
