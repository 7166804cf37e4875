"""Names of what IANA's IKEv2 registry has beyond our five documents, so that a message can be explained."""

from __future__ import annotations

from mobikectl.wire.notify import NotifyCodec, Source

_ERRORS = {
    1: "UNSUPPORTED_CRITICAL_PAYLOAD",
    4: "INVALID_IKE_SPI",
    5: "INVALID_MAJOR_VERSION",
    7: "INVALID_SYNTAX",
    9: "INVALID_MESSAGE_ID",
    11: "INVALID_SPI",
    14: "NO_PROPOSAL_CHOSEN",
    17: "INVALID_KE_PAYLOAD",
    24: "AUTHENTICATION_FAILED",
    34: "SINGLE_PAIR_REQUIRED",
    35: "NO_ADDITIONAL_SAS",
    36: "INTERNAL_ADDRESS_FAILURE",
    37: "FAILED_CP_REQUIRED",
    38: "TS_UNACCEPTABLE",
    39: "INVALID_SELECTORS",
    43: "TEMPORARY_FAILURE",
    44: "CHILD_SA_NOT_FOUND",
}
_STATUS = {
    16384: "INITIAL_CONTACT",
    16385: "SET_WINDOW_SIZE",
    16386: "ADDITIONAL_TS_POSSIBLE",
    16387: "IPCOMP_SUPPORTED",
    16390: "COOKIE",
    16391: "USE_TRANSPORT_MODE",
    16392: "HTTP_CERT_LOOKUP_SUPPORTED",
    16393: "REKEY_SA",
    16394: "ESP_TFC_PADDING_NOT_SUPPORTED",
    16395: "NON_FIRST_FRAGMENTS_ALSO",
}
_EXTENSIONS = {
    16403: ("AUTH_LIFETIME", "RFC 4478", "3"),
    16404: ("MULTIPLE_AUTH_SUPPORTED", "RFC 4739", "3.1"),
    16405: ("ANOTHER_AUTH_FOLLOWS", "RFC 4739", "3.2"),
    16417: ("EAP_ONLY_AUTHENTICATION", "RFC 5998", "3"),
    16418: ("CHILDLESS_IKEV2_SUPPORTED", "RFC 6023", "3"),
    16430: ("IKEV2_FRAGMENTATION_SUPPORTED", "RFC 7383", "2.3"),
    16431: ("SIGNATURE_HASH_ALGORITHMS", "RFC 7427", "4"),
}

CODECS: tuple[NotifyCodec, ...] = (
    *(NotifyCodec(name, n, Source("RFC 7296", "3.10.1"), "an error of IKEv2") for n, name in _ERRORS.items()),
    *(NotifyCodec(name, n, Source("RFC 7296", "3.10.1"), "a status of IKEv2") for n, name in _STATUS.items()),
    *(
        NotifyCodec(name, n, Source(document, section), "a capability or status of an IKEv2 extension")
        for n, (name, document, section) in _EXTENSIONS.items()
    ),
)
"""Rows without a typed notify: their data is kept as it is."""
