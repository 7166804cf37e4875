"""The kernel's side: what the host's network is, how it changes, and the routes that steer.

`Watcher` follows links, addresses, rules and routes; `RouteLookup` and `lookup` ask the kernel for a way;
`SteeringRoutes` installs the host routes that move charon; `KernelSas` reads the kernel's IPsec SAs;
`portable.snapshot` is for systems without netlink.
"""

from mobikectl.netlink.lookup import RouteLookup, lookup
from mobikectl.netlink.routes import STEERING_PRIORITY, RouteConflictError, SteeringRoute, SteeringRoutes
from mobikectl.netlink.state import NetChange, RouteChanges, RouteEvent
from mobikectl.netlink.watcher import Watcher, WatcherCounters
from mobikectl.netlink.xfrm import KernelSa, KernelSas, ReplayState
from mobikectl.netlink.xfrm import available as xfrm_available

__all__ = [
    "STEERING_PRIORITY",
    "KernelSa",
    "KernelSas",
    "NetChange",
    "ReplayState",
    "RouteChanges",
    "RouteConflictError",
    "RouteEvent",
    "RouteLookup",
    "SteeringRoute",
    "SteeringRoutes",
    "Watcher",
    "WatcherCounters",
    "lookup",
    "xfrm_available",
]
