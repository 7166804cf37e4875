"""The kernel's side: what the host's network is, how it changes, and the routes that steer.

`Watcher` follows links, addresses, rules and routes; `RouteLookup` and `lookup` ask the kernel for a way;
`SteeringRoutes` installs the host routes that move charon; `KernelSas` reads the kernel's IPsec SAs; `EspSequences` has
one of them go on with another's sequence numbers;
`portable.snapshot` is for systems without netlink.
"""

from mobikectl.netlink.esp import EspSequences, Received, Rekey, Reservation, Standing, continuity
from mobikectl.netlink.lookup import RouteLookup, lookup
from mobikectl.netlink.routes import STEERING_PRIORITY, RouteConflictError, SteeringRoute, SteeringRoutes
from mobikectl.netlink.state import NetChange, RouteChanges, RouteEvent
from mobikectl.netlink.watcher import Watcher, WatcherCounters
from mobikectl.netlink.xfrm import KernelSa, KernelSas, Mark, ReplayState
from mobikectl.netlink.xfrm import available as xfrm_available

__all__ = [
    "STEERING_PRIORITY",
    "EspSequences",
    "KernelSa",
    "KernelSas",
    "Mark",
    "NetChange",
    "Received",
    "Rekey",
    "ReplayState",
    "Reservation",
    "RouteChanges",
    "RouteConflictError",
    "RouteEvent",
    "RouteLookup",
    "Standing",
    "SteeringRoute",
    "SteeringRoutes",
    "Watcher",
    "WatcherCounters",
    "continuity",
    "lookup",
    "xfrm_available",
]
