"""A responder asks for a switch, there and back."""

from mobikectl.lab.exchange import Message, difference, log_end, messages_since, without
from mobikectl.lab.run import Run

SECTION_4_2 = (
    "<-- 198.18.9.1[4500] INFORMATIONAL request { N(SWITCH_TO_IP_ADDRESS(198.18.10.1)) }",
    "--> 198.18.9.1[4500] INFORMATIONAL response { }",
    # RFC 4555 section 3.10: the new path is tested before it is used.
    "--> 198.18.10.1[4500] INFORMATIONAL request { }",
    "<-- 198.18.10.1[4500] INFORMATIONAL response { }",
    (
        "--> 198.18.10.1[4500] INFORMATIONAL request"
        " { N(UPDATE_SA_ADDRESSES) N(NAT_DETECTION_SOURCE_IP) N(NAT_DETECTION_DESTINATION_IP) N(COOKIE2) }"
    ),
    (
        "<-- 198.18.10.1[4500] INFORMATIONAL response"
        " { N(NAT_DETECTION_SOURCE_IP) N(NAT_DETECTION_DESTINATION_IP) N(COOKIE2) }"
    ),
)
"""draft-smyslov-ipsecme-ikev2-r-mobike-09 section 4.2, as the client sees it, with the test of the path."""


async def steps(run: Run) -> None:
    """Ask the client to the second address and back; both times it follows."""
    start = log_end(run.lab, "client")
    there = await run.switch("gateway", peer="client.lab.example", to="198.18.10.1", mechanism="notify")
    await run.served("home", "198.18.1.1", "198.18.10.1", after=there, metric="switched_ms")
    await run.traffic(0.5)
    messages = without(messages_since(run.lab, "client", start), is_another_matter)
    run.show("the messages of draft-smyslov-ipsecme-ikev2-r-mobike section 4.2, seen by the client", messages)
    run.record("section_4_2", difference(messages, SECTION_4_2) or "as in the draft")
    back = await run.switch("gateway", peer="client.lab.example", to="198.18.9.1")
    await run.served("home", "198.18.1.1", "198.18.9.1", after=back, metric="back_ms")
    await run.traffic(0.5)


def is_another_matter(request: Message) -> bool:
    """Whether a request has nothing to do with the switch.

    Userland ESP rekeys the CHILD_SA after it, and a gateway whose best address has changed tells its addresses again
    (RFC 4555 section 3.6).
    """
    if request.exchange == "CREATE_CHILD_SA" or request.payloads == ("D",):
        return True
    return any("ADDITIONAL" in payload for payload in request.payloads)
