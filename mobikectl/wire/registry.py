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
    16418: ("CHILDLESS_IKEV2_SUPPORTED", "RFC 6023", "4"),
    16420: ("IKEV2_MESSAGE_ID_SYNC_SUPPORTED", "RFC 6311", "7"),
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

_7296 = "RFC 7296"

PAYLOADS: dict[int, tuple[Source, str]] = {
    33: (Source(_7296, "3.3"), "Security Association: the proposals"),
    34: (Source(_7296, "3.4"), "Key Exchange: a group and a public value"),
    35: (Source(_7296, "3.5"), "Identification of the initiator"),
    36: (Source(_7296, "3.5"), "Identification of the responder"),
    37: (Source(_7296, "3.6"), "Certificate"),
    38: (Source(_7296, "3.7"), "Certificate Request"),
    39: (Source(_7296, "3.8"), "Authentication"),
    40: (Source(_7296, "3.9"), "Nonce"),
    41: (Source(_7296, "3.10"), "Notify"),
    42: (Source(_7296, "3.11"), "Delete: the sender's SAs that are gone"),
    43: (Source(_7296, "3.12"), "Vendor ID"),
    44: (Source(_7296, "3.13"), "Traffic Selector of the initiator"),
    45: (Source(_7296, "3.13"), "Traffic Selector of the responder"),
    46: (Source(_7296, "3.14"), "Encrypted and Authenticated: not readable without keys"),
    47: (Source(_7296, "3.15"), "Configuration"),
    48: (Source(_7296, "3.16"), "Extensible Authentication Protocol"),
    53: (Source("RFC 7383", "2.5"), "Encrypted and Authenticated Fragment: not readable without keys"),
}
"""Payload types: where they are specified and what they are."""

UPDATE_PAYLOAD = (
    Source("draft-dupont-ikev2-addrmgmt-06", "B"),
    "Peer Address Update: which SAs get the marked address as their new peer address",
)
"""The same for the Peer Address Update payload, whose number depends on the dialect."""

RESPONDER_INITIATED = (
    Source("draft-smyslov-ipsecme-ikev2-r-mobike-09", "5.1"),
    "the sender speaks MOBIKE and, as its 'R' says, understands SWITCH_TO_IP_ADDRESS",
)
"""The same for a MOBIKE_SUPPORTED whose data is that draft's."""

EXCHANGES = {
    34: Source(_7296, "1.2"),
    35: Source(_7296, "1.2"),
    36: Source(_7296, "1.3"),
    37: Source(_7296, "1.4"),
    38: Source("RFC 5723", "4.3"),
    43: Source("RFC 9242", "3.2"),
    44: Source("RFC 9370", "2.2.4"),
}
"""Exchange types: where they are specified."""
