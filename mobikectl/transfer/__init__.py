"""What the sidecars of a cluster tell each other to carry IKE_SAs over: requests by mutually authenticated TLS 1.3.

`TransferClient` asks, `serving` answers, `StoreGuard` decides who may ask; `Tls` holds the certificates.
"""

from mobikectl.transfer.client import Endpoint, TransferClient, locate_by
from mobikectl.transfer.credentials import Tls
from mobikectl.transfer.guard import Guard, StoreGuard
from mobikectl.transfer.server import Request, Verb, serving

__all__ = [
    "Endpoint",
    "Guard",
    "Request",
    "StoreGuard",
    "Tls",
    "TransferClient",
    "Verb",
    "locate_by",
    "serving",
]
