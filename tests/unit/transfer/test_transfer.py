"""Requests between nodes over TLS on loopback, and peers that are hostile, slow or wrong."""

from __future__ import annotations

import asyncio
import ssl
import struct
import time
from typing import TYPE_CHECKING

import pytest

from mobikectl.errors import (
    ConfigError,
    MoveError,
    TransferDeniedError,
    TransferRefusedError,
    TransferUnreachableError,
)
from mobikectl.transfer import Request, Verb
from mobikectl.transfer.server import Limits
from mobikectl.wire.secret import SecretBytes
from mobikectl.wire.transfer import Frame, Greeting, Kind, encode, encode_greeting

from .nodes import LOOPBACK, TOKEN, Between, Members, Nodes

if TYPE_CHECKING:
    from pathlib import Path

BOTH = ("gw1", "gw2")
QUICK = Limits(handshake_s=0.3, greeting_s=0.3, frame_s=0.3, idle_s=5.0)
PAYLOAD = SecretBytes(b"KEYMAT")


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


@pytest.fixture
def members(nodes: Nodes) -> Members:
    return Members({nodes.who(name) for name in BOTH})


async def test_a_member_is_answered_over_one_connection(nodes: Nodes, members: Members) -> None:
    async with (
        nodes.serve("gw2", members, limits=Limits(per_node=1)) as port,
        nodes.client("gw1", port) as client,
    ):
        calls = (
            client.call("gw2", "echo", SecretBytes(bytes([n])), token=TOKEN, deadline=5) for n in range(40)
        )
        answers = await asyncio.gather(*calls)
    assert [answer.reveal() for answer in answers] == [b"gw1:" + bytes([n]) for n in range(40)]


async def test_answers_come_in_any_order(nodes: Nodes, members: Members) -> None:
    release = asyncio.Event()

    async def slow(_: Request) -> SecretBytes:
        await release.wait()
        return SecretBytes(b"at last")

    async with nodes.serve("gw2", members, {"slow": Verb(slow)}) as port, nodes.client("gw1", port) as client:
        waiting = asyncio.create_task(client.call("gw2", "slow", token=TOKEN, deadline=5))
        assert await client.call("gw2", "echo", PAYLOAD, token=TOKEN, deadline=5) == SecretBytes(
            b"gw1:KEYMAT"
        )
        release.set()
        assert (await waiting).reveal() == b"at last"


async def test_what_a_handler_refuses_comes_with_its_words_and_its_class(
    nodes: Nodes, members: Members
) -> None:
    async def refuse(_: Request) -> SecretBytes:
        raise MoveError("an exchange is pending", hint="try again in a second")

    async with (
        nodes.serve("gw2", members, {"freeze": Verb(refuse)}) as port,
        nodes.client("gw1", port) as client,
    ):
        with pytest.raises(TransferRefusedError, match="an exchange is pending") as caught:
            await client.call("gw2", "freeze", token=TOKEN, deadline=5)
    assert (caught.value.kind, caught.value.hint) == ("MoveError", "try again in a second")


async def test_a_request_that_nobody_knows_is_refused(nodes: Nodes, members: Members) -> None:
    async with nodes.serve("gw2", members) as port, nodes.client("gw1", port) as client:
        with pytest.raises(TransferRefusedError, match="does not know the request 'dance'"):
            await client.call("gw2", "dance", token=TOKEN, deadline=5)


async def test_a_handler_that_hangs_is_ended_and_the_connection_goes_on(
    nodes: Nodes, members: Members
) -> None:
    async def hang(_: Request) -> SecretBytes:
        await asyncio.Event().wait()
        raise AssertionError

    verbs = {"hang": Verb(hang, deadline_s=0.1)}
    async with nodes.serve("gw2", members, verbs) as port, nodes.client("gw1", port) as client:
        with pytest.raises(TransferRefusedError, match=r"not done within 0\.1 s"):
            await client.call("gw2", "hang", token=TOKEN, deadline=5)
        await client.call("gw2", "echo", token=TOKEN, deadline=5)


async def test_no_answer_in_time_leaves_open_whether_it_was_done(nodes: Nodes, members: Members) -> None:
    done = asyncio.Event()

    async def slow(_: Request) -> SecretBytes:
        await asyncio.sleep(0.3)
        done.set()
        return PAYLOAD

    async with nodes.serve("gw2", members, {"slow": Verb(slow)}) as port, nodes.client("gw1", port) as client:
        with pytest.raises(TransferUnreachableError) as caught:
            await client.call("gw2", "slow", token=TOKEN, deadline=0.1)
        assert caught.value.maybe_done
        async with asyncio.timeout(5):
            await done.wait()


async def test_a_request_is_carried_out_to_its_end_when_its_connection_is_lost(
    nodes: Nodes, members: Members
) -> None:
    begun, release, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(_: Request) -> SecretBytes:
        begun.set()
        await release.wait()
        done.set()
        return PAYLOAD

    async with nodes.serve("gw2", members, {"slow": Verb(slow)}) as port:
        async with nodes.client("gw1", port) as client:
            waiting = asyncio.create_task(client.call("gw2", "slow", token=TOKEN, deadline=5))
            await begun.wait()
        with pytest.raises(TransferUnreachableError, match="lost") as caught:
            await waiting
        assert caught.value.maybe_done
        release.set()
        async with asyncio.timeout(5):
            await done.wait()


async def test_a_node_that_was_started_anew_is_connected_to_anew(nodes: Nodes, members: Members) -> None:
    async with nodes.serve("gw2", members) as port:
        client = nodes.client("gw1", port)
        async with client:
            await client.call("gw2", "echo", token=TOKEN, deadline=5)
            link = client._links["gw2"]
            link._stream.cut()
            await asyncio.wait([link._reading], timeout=5)
            await client.call("gw2", "echo", token=TOKEN, deadline=5)


async def test_a_node_that_is_killed_resets_its_connections_and_that_is_no_more_than_a_lost_request(
    nodes: Nodes, members: Members
) -> None:
    begun = asyncio.Event()

    async def slow(_: Request) -> SecretBytes:
        begun.set()
        await asyncio.sleep(0.2)
        return PAYLOAD

    async with nodes.serve("gw2", members, {"slow": Verb(slow)}) as port:
        between = Between(port)
        async with between.serve() as listening, nodes.client("gw1", listening) as client:
            waiting = asyncio.create_task(client.call("gw2", "slow", token=TOKEN, deadline=5))
            await begun.wait()
            between.reset()
            with pytest.raises(TransferUnreachableError, match="lost") as caught:
                await waiting
            assert caught.value.maybe_done
            await client.call("gw2", "echo", token=TOKEN, deadline=5)


async def test_where_nobody_listens_nothing_was_done(nodes: Nodes, members: Members) -> None:
    async with nodes.serve("gw2", members) as port:
        pass
    async with nodes.client("gw1", port) as client:
        with pytest.raises(TransferUnreachableError) as caught:
            await client.call("gw2", "echo", token=TOKEN, deadline=5)
    assert not caught.value.maybe_done


# --- who may ask ---------------------------------------------------------------------------------


async def test_an_old_token_is_refused_and_what_needs_none_is_done(nodes: Nodes, members: Members) -> None:
    asked: list[str] = []

    async def note(request: Request) -> SecretBytes:
        asked.append(request.verb)
        return PAYLOAD

    verbs = {"activate": Verb(note), "abort": Verb(note, fenced=False)}
    async with nodes.serve("gw2", members, verbs) as port, nodes.client("gw1", port) as client:
        with pytest.raises(TransferRefusedError) as caught:
            await client.call("gw2", "activate", token=TOKEN - 1, deadline=5)
        await client.call("gw2", "abort", deadline=5)
    assert caught.value.kind == "FencedError"
    assert asked == ["abort"]


async def test_who_is_no_member_is_refused_whatever_its_certificate(nodes: Nodes, members: Members) -> None:
    async with nodes.serve("gw2", members) as port, nodes.client("gw9", port) as client:
        with pytest.raises(TransferDeniedError, match="gw9 is no member"):
            await client.call("gw2", "echo", token=TOKEN, deadline=5)


async def test_a_member_that_is_none_any_more_is_refused_on_its_open_connection(
    nodes: Nodes, members: Members
) -> None:
    async with nodes.serve("gw2", members) as port, nodes.client("gw1", port) as client:
        await client.call("gw2", "echo", token=TOKEN, deadline=5)
        members.members.discard(nodes.who("gw1"))
        with pytest.raises(TransferRefusedError) as caught:
            await client.call("gw2", "echo", token=TOKEN, deadline=5)
    assert caught.value.kind == "TransferDeniedError"


async def test_a_certificate_of_another_authority_is_refused_by_both_sides(
    nodes: Nodes, members: Members, tmp_path: Path
) -> None:
    others = Nodes(tmp_path / "others")
    async with nodes.serve("gw2", members) as port:
        async with nodes.client("gw1", port, settings=others.settings("gw1")) as client:
            with pytest.raises(TransferDeniedError, match="certificate"):
                await client.call("gw2", "echo", token=TOKEN, deadline=5)
        reader, writer = await _any_server(others, nodes, port)
        assert await _is_closed(reader)
        writer.close()


async def _any_server(
    others: Nodes, nodes: Nodes, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect with the others' certificate without looking at the server's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    settings = others.settings("gw1")
    context.load_cert_chain(settings.certificate, settings.key)
    reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context)
    writer.write(encode(Frame(Kind.HELLO, payload=encode_greeting(nodes.who("gw1")))))
    return reader, writer


async def test_a_node_cannot_say_to_be_another(nodes: Nodes, members: Members) -> None:
    forged = nodes.settings("forged", name="gw3")
    async with (
        nodes.serve("gw2", members) as port,
        nodes.client("gw1", port, settings=forged) as client,
    ):
        with pytest.raises(TransferDeniedError, match="the certificate is of gw3, not of gw1"):
            await client.call("gw2", "echo", token=TOKEN, deadline=5)


async def test_a_server_that_is_another_node_gets_no_request(nodes: Nodes, members: Members) -> None:
    asked: list[Request] = []

    async def note(request: Request) -> SecretBytes:
        asked.append(request)
        return PAYLOAD

    members.members.add(nodes.who("gw3"))
    async with (
        nodes.serve("gw3", members, {"import": Verb(note)}) as port,
        nodes.client("gw1", port) as client,
    ):
        with pytest.raises(TransferDeniedError, match="the certificate is of gw3, not of gw2"):
            await client.call("gw2", "import", PAYLOAD, token=TOKEN, deadline=5)
    assert not asked


async def test_a_server_whose_process_is_not_the_member_gets_no_request(
    nodes: Nodes, members: Members
) -> None:
    async with nodes.serve("gw2", members) as port, nodes.client("gw1", port, instance="gw2-2") as client:
        with pytest.raises(TransferDeniedError, match="another process"):
            await client.call("gw2", "echo", PAYLOAD, token=TOKEN, deadline=5)


async def test_a_node_of_another_cluster_is_refused(nodes: Nodes, members: Members) -> None:
    stranger = Greeting("other", "gw1", "gw1-1")
    members.members.add(stranger)
    async with nodes.serve("gw2", members) as port:
        client = nodes.client("gw1", port)
        client._me = stranger
        async with client:
            with pytest.raises(TransferDeniedError, match="of the cluster lab, not of other"):
                await client.call("gw2", "echo", token=TOKEN, deadline=5)


async def test_without_a_certificate_there_is_no_connection(nodes: Nodes, members: Members) -> None:
    async with nodes.serve("gw2", members) as port:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(nodes.settings("gw1").ca)
        reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context)
        writer.write(encode(Frame(Kind.HELLO, payload=encode_greeting(nodes.who("gw1")))))
        assert await _is_closed(reader)
        writer.close()


async def test_tls_1_2_is_refused(nodes: Nodes, members: Members) -> None:
    async with nodes.serve("gw2", members) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await nodes.raw("gw1", port, maximum_version=ssl.TLSVersion.TLSv1_2)


# --- who does not behave -----------------------------------------------------------------------------


async def _is_closed(reader: asyncio.StreamReader, within: float = 5.0) -> bool:
    async with asyncio.timeout(within):
        try:
            while await reader.read(4096):
                pass
        except (ssl.SSLError, ConnectionError):
            return True
    return True


async def _still_answers(nodes: Nodes, port: int) -> bool:
    async with nodes.client("gw1", port) as client:
        answer = await client.call("gw2", "echo", PAYLOAD, token=TOKEN, deadline=5)
    return answer == SecretBytes(b"gw1:KEYMAT")


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!I", 0xFFFFFFFF),
        struct.pack("!I", 0),
        struct.pack("!I", 2000) + bytes(2000),
        encode(Frame(Kind.REQUEST, 1, "echo", TOKEN)),
        encode(Frame(Kind.HELLO, payload=SecretBytes(b"nobody"))),
        encode(Frame(Kind.HELLO))[:-3],
    ],
    ids=["http", "endless", "empty", "oversize", "no greeting", "bad greeting", "cut short"],
)
async def test_garbage_before_the_greeting_closes_that_connection_only(
    nodes: Nodes, members: Members, said: bytes
) -> None:
    async with nodes.serve("gw2", members, limits=QUICK) as port:
        reader, writer = await nodes.raw("gw1", port)
        writer.write(said)
        assert await _is_closed(reader)
        writer.close()
        assert await _still_answers(nodes, port)


@pytest.mark.parametrize(
    "said",
    [struct.pack("!I", 1 << 18 | 1), b"\0\0\0\x20" + b"\x07" * 32, encode(Frame(Kind.WELCOME))],
    ids=["oversize", "version", "kind"],
)
async def test_garbage_after_the_greeting_closes_that_connection_only(
    nodes: Nodes, members: Members, said: bytes
) -> None:
    async with nodes.serve("gw2", members, limits=QUICK) as port:
        reader, writer = await nodes.raw("gw1", port)
        writer.write(encode(Frame(Kind.HELLO, payload=encode_greeting(nodes.who("gw1")))))
        assert await reader.read(4096)
        writer.write(said)
        assert await _is_closed(reader)
        writer.close()
        assert await _still_answers(nodes, port)


async def test_who_drips_octets_is_cut_off_in_time(nodes: Nodes, members: Members) -> None:
    async with nodes.serve("gw2", members, limits=QUICK) as port:
        reader, writer = await nodes.raw("gw1", port)
        begun = time.monotonic()
        for octet in encode(Frame(Kind.HELLO, payload=SecretBytes(bytes(800)))):
            if reader.at_eof() or writer.is_closing():
                break
            writer.write(bytes([octet]))
            await asyncio.sleep(0.05)
        assert await _is_closed(reader)
        assert time.monotonic() - begun < 20
        writer.close()
        assert await _still_answers(nodes, port)


async def test_a_frame_that_has_begun_has_less_time_than_an_idle_connection(
    nodes: Nodes, members: Members
) -> None:
    async with nodes.serve("gw2", members, limits=Limits(frame_s=0.2, idle_s=60.0)) as port:
        reader, writer = await nodes.raw("gw1", port)
        writer.write(encode(Frame(Kind.HELLO, payload=encode_greeting(nodes.who("gw1")))))
        assert await reader.read(4096)
        writer.write(encode(Frame(Kind.REQUEST, 1, "echo", TOKEN))[:10])
        assert await _is_closed(reader)
        writer.close()


async def test_who_never_begins_tls_or_never_greets_is_cut_off(nodes: Nodes, members: Members) -> None:
    async with nodes.serve("gw2", members, limits=QUICK) as port:
        plain_reader, plain = await asyncio.open_connection(LOOPBACK, port)
        silent_reader, silent = await nodes.raw("gw1", port)
        assert await _is_closed(plain_reader)
        assert await _is_closed(silent_reader)
        plain.close()
        silent.close()
        assert await _still_answers(nodes, port)


async def test_more_connections_than_one_address_may_have_are_closed_at_once(
    nodes: Nodes, members: Members
) -> None:
    async with nodes.serve("gw2", members, limits=Limits(per_address=2)) as port:
        held = [await asyncio.open_connection(LOOPBACK, port) for _ in range(2)]
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        assert await _is_closed(reader)
        for other in (writer, *(writer for _, writer in held)):
            other.close()


async def test_a_node_that_opens_many_connections_loses_its_oldest(nodes: Nodes, members: Members) -> None:
    async with nodes.serve("gw2", members, limits=Limits(per_node=2)) as port:
        greeted = []
        for _ in range(3):
            reader, writer = await nodes.raw("gw1", port)
            writer.write(encode(Frame(Kind.HELLO, payload=encode_greeting(nodes.who("gw1")))))
            assert await reader.read(4096)
            greeted.append((reader, writer))
        assert await _is_closed(greeted[0][0])
        for _, writer in greeted[1:]:
            writer.write(encode(Frame(Kind.REQUEST, 1, "echo", TOKEN)))
        assert all([await reader.read(4096) for reader, _ in greeted[1:]])
        for _, writer in greeted:
            writer.close()


# --- files --------------------------------------------------------------------------------------


async def test_a_key_that_others_may_read_is_not_used(nodes: Nodes, members: Members) -> None:
    nodes.settings("gw2").key.chmod(0o640)
    with pytest.raises(ConfigError, match="others than its owner"):
        async with nodes.serve("gw2", members):
            raise AssertionError("it serves")


async def test_a_renewed_certificate_is_used_without_a_restart(nodes: Nodes, members: Members) -> None:
    async with nodes.serve("gw2", members) as port:
        assert await _still_answers(nodes, port)
        old = await _serial(nodes, port)
        from mobikectl.transfer import certificates

        files = certificates.issue(nodes.folder / "ca", "gw2", 10, certificates.today())
        certificates.install(files, nodes.folder / "gw2", replace=True)
        assert await _serial(nodes, port) != old


async def _serial(nodes: Nodes, port: int) -> str:
    _, writer = await nodes.raw("gw1", port)
    serial: str = writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
    writer.close()
    return serial


async def test_key_material_is_in_no_log(
    nodes: Nodes, members: Members, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(_: Request) -> SecretBytes:
        raise MoveError("no")

    caplog.set_level("DEBUG")
    async with (
        nodes.serve("gw2", members, {"import": Verb(refuse)}) as port,
        nodes.client("gw1", port) as client,
    ):
        with pytest.raises(TransferRefusedError):
            await client.call("gw2", "import", PAYLOAD, token=TOKEN, deadline=5)
    assert "import of gw1 is refused" in caplog.text
    assert "KEYMAT" not in caplog.text
