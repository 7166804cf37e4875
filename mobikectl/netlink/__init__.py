"""The kernel's side: what the host's network is, how it changes, and the routes that steer.

`Watcher` follows links, addresses, rules and routes; `RouteLookup` and `lookup` ask the kernel for a way;
`SteeringRoutes` installs the host routes that move charon; `portable.snapshot` is for systems without netlink.
"""

from mobikectl.netlink.lookup import RouteLookup, lookup
from mobikectl.netlink.routes import STEERING_PRIORITY, RouteConflictError, SteeringRoute, SteeringRoutes
from mobikectl.netlink.state import NetChange, RouteChanges, RouteEvent
from mobikectl.netlink.watcher import Watcher, WatcherCounters

__all__ = [
    "STEERING_PRIORITY",
    "NetChange",
    "RouteChanges",
    "RouteConflictError",
    "RouteEvent",
    "RouteLookup",
    "SteeringRoute",
    "SteeringRoutes",
    "Watcher",
    "WatcherCounters",
    "lookup",
]
