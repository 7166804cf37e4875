"""Three ways to authenticate; a move needs none of them again."""

from mobikectl.lab.run import Run

AUTHENTICATED = {
    "psk": "authentication of 'psk.lab.example' with pre-shared key successful",
    "certificate": "authentication of 'certificate.lab.example' with ECDSA_WITH_SHA256_DER successful",
    "password": "authentication of 'password.lab.example' with EAP successful",
}
"""What the gateway's charon says once for each, when the IKE_SA is made."""


async def steps(run: Run) -> None:
    """Take each client's first uplink down, and see what the gateway knows them by."""
    for number, client in enumerate(AUTHENTICATED):
        down = await run.link_down(client, "wan1")
        local = f"198.18.{2 * number + 2}.1"
        await run.served(client, local, "198.18.9.1", after=down, metric=f"{client}.recovery_ms")
    await run.traffic(1.0)
    log = (run.lab.record.node_dir("gateway") / "charon.log").read_text(errors="replace")
    wrong = [client for client, line in AUTHENTICATED.items() if log.count(line) != 1]
    run.record("as_configured", "no: " + ", ".join(wrong) if wrong else "yes")
