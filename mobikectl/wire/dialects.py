"""The dialects of the five documents, and one that joins what does not clash."""

from __future__ import annotations

from mobikectl.wire import dupont, kivinen, mobike, redirect, registry, rmobike
from mobikectl.wire.notify import Dialect

CURRENT = Dialect("current", registry.CODECS + mobike.CODECS + redirect.CODECS + rmobike.CODECS)
"""What runs today: RFC 7296, RFC 4555, RFC 5685 and r-mobike-09."""

REDIRECT_01 = CURRENT.joined("redirect-01", redirect.DRAFT_CODECS)
"""With draft-ietf-ipsecme-ikev2-redirect-01's formats in place of RFC 5685's."""

KIVINEN_00 = CURRENT.joined("kivinen-00", kivinen.CODECS)
"""With draft-kivinen-mobike-protocol-00."""

DUPONT_06 = CURRENT.joined("dupont-06", dupont.CODECS, update_payload=dupont.UPDATE_PAYLOAD)
"""With draft-dupont-ikev2-addrmgmt-06."""

EVERY = CURRENT.joined(
    "every", (*kivinen.CODECS, *dupont.CODECS, redirect.ACK), update_payload=dupont.UPDATE_PAYLOAD
)
"""All documents at once, for looking at captures; REDIRECT and REDIRECTED_FROM are RFC 5685's."""

DIALECTS: dict[str, Dialect] = {d.name: d for d in (CURRENT, REDIRECT_01, KIVINEN_00, DUPONT_06, EVERY)}
"""By name, as the command line knows them."""
