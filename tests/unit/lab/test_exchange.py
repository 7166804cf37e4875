"""IKE messages from charon's log."""

from __future__ import annotations

from mobikectl.lab.exchange import Message, difference, read_messages, without

LOG = """\
06:42:44.576 15[NET] received packet: from 198.18.9.1[4500] to 198.18.1.1[4500] (80 bytes)
06:42:44.576 15[ENC] parsed INFORMATIONAL request 0 [ N((41042)) ]
06:42:44.576 15[IKE] peer of IKE_SA home[2] asks to switch to 198.18.10.1
06:42:44.576 15[ENC] generating INFORMATIONAL response 0 [ ]
06:42:44.576 15[NET] sending packet: from 198.18.1.1[4500] to 198.18.9.1[4500] (80 bytes)
06:42:44.596 12[ENC] generating INFORMATIONAL request 3 [ ]
06:42:44.596 12[IKE] checking wanted path 198.18.1.1[4500] - 198.18.10.1[4500]
06:42:44.596 13[NET] received packet: from 198.18.9.1[4500] to 198.18.1.1[4500] (208 bytes)
06:42:44.596 12[NET] sending packet: from 198.18.1.1[4500] to 198.18.10.1[4500] (80 bytes)
06:42:44.596 12[NET] sending packet: from 198.18.1.1[4500] to 198.18.9.1[4500] (80 bytes)
06:42:44.600 13[ENC] parsed CREATE_CHILD_SA request 1 [ N(REKEY_SA) SA No TSi TSr ]
06:42:44.601 13[ENC] generating CREATE_CHILD_SA response 1 [ SA No TSi TSr ]
06:42:44.601 13[NET] sending packet: from 198.18.1.1[4500] to 198.18.10.1[4500] (192 bytes)
06:42:44.602 12[NET] received packet: from 198.18.10.1[4500] to 198.18.1.1[4500] (160 bytes)
06:42:44.602 12[ENC] parsed INFORMATIONAL response 4 [ N(NATD_S_IP) N(NATD_D_IP) N(COOKIE2) N((40999)) ]
"""
SHAPES = [
    "<-- 198.18.9.1[4500] INFORMATIONAL request { N(SWITCH_TO_IP_ADDRESS(198.18.10.1)) }",
    "--> 198.18.9.1[4500] INFORMATIONAL response { }",
    "--> 198.18.10.1[4500] INFORMATIONAL request { }",
    "<-- 198.18.9.1[4500] CREATE_CHILD_SA request { N(REKEY_SA) SA No TSi TSr }",
    "--> 198.18.10.1[4500] CREATE_CHILD_SA response { SA No TSi TSr }",
    (
        "<-- 198.18.10.1[4500] INFORMATIONAL response"
        " { N(NAT_DETECTION_SOURCE_IP) N(NAT_DETECTION_DESTINATION_IP) N(COOKIE2) N((40999)) }"
    ),
]


def message(*, outgoing: bool, response: bool, number: int, exchange: str = "INFORMATIONAL") -> Message:
    return Message(outgoing, "198.18.1.1[4500]", "198.18.9.1[4500]", exchange, response, number, ())


def test_messages_have_the_documents_names_and_the_address_that_was_asked_for() -> None:
    assert [one.shape for one in read_messages(LOG)] == SHAPES


def test_a_message_is_shown_with_both_ends_and_its_number() -> None:
    first = read_messages(LOG)[0]
    assert str(first) == (
        "198.18.1.1[4500] <-- 198.18.9.1[4500] INFORMATIONAL request 0"
        " { N(SWITCH_TO_IP_ADDRESS(198.18.10.1)) }"
    )


def test_what_is_no_message_of_charon_is_passed_over() -> None:
    assert read_messages("rubbish\n06:42:44.5 12[KNL] parsed x\n06:42:44.5 12[ENC] parsed odd 3 [ ]\n") == []


def test_an_exchange_is_left_out_with_its_response_and_only_with_its_own() -> None:
    ours = [
        message(outgoing=True, response=False, number=1),
        message(outgoing=False, response=True, number=1),
    ]
    theirs = [
        message(outgoing=False, response=False, number=1, exchange="CREATE_CHILD_SA"),
        message(outgoing=True, response=True, number=1, exchange="CREATE_CHILD_SA"),
    ]
    both = [ours[0], theirs[0], theirs[1], ours[1]]
    assert without(both, lambda one: one.exchange == "CREATE_CHILD_SA") == ours


def test_the_first_difference_from_the_document_is_named() -> None:
    found = read_messages(LOG)
    assert difference(found, SHAPES) == ""
    assert difference(found, [*SHAPES[:1], "--> elsewhere"]) == (
        "message 2: expected --> elsewhere, got --> 198.18.9.1[4500] INFORMATIONAL response { }"
    )
    assert difference(found, [*SHAPES, "more"]) == "message 7: expected more, got nothing"
    assert difference(found, SHAPES[:5]) == f"one too many: {SHAPES[5]}"
