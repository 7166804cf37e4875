"""Two hundred switches."""

from mobikectl.lab.run import Run
from mobikectl.lab.wait import until

SWITCHES = 200
NODES = ("client", "gateway")
PING_MS = 10.0
"""Between two pings: what one that is lost stands for."""
REASONS = {
    "XfrmInNoStates": "no_state",
    "XfrmInNoPols": "no_policy",
    "XfrmInTmplMismatch": "other_policy",
    "XfrmInStateSeqError": "replay",
    "XfrmOutPolBlock": "drop_policy",
    "XfrmOutNoStates": "no_state",
}
"""What a kernel says of a packet that it drops while charon changes addresses (/proc/net/xfrm_stat)."""


async def steps(run: Run) -> None:
    """Ask the client to the other address, again and again; it follows each time."""
    kernel = run.lab.record.esp == "kernel"
    before = await drops(run) if kernel else {}
    installed = await entries(run) if kernel else []
    begin = run.cause("the switches begin")
    for number in range(SWITCHES):
        target = ("198.18.10.1", "198.18.9.1")[number % 2]
        switch = await run.switch("gateway", peer="client.lab.example", to=target, mechanism="notify")
        await run.served("home", "198.18.1.1", target, after=switch, metric="last_ms")
        run.record("switches", number + 1)
        if not kernel:  # user-mode-linux is slow enough as it is
            await run.traffic(0.1)
    lost = await run.losses("home", since=begin, metric="lost_in_switches")
    run.record("lost_percent", round(100 * lost / run.sent("home", since=begin), 3))
    run.record("blackout_ms", round(lost * PING_MS / SWITCHES, 2))
    run.record("asked_back", len(run.told("gateway", "asked-back", since=begin)))
    if kernel:
        after = await drops(run)
        for reason, count in after.items():
            run.record(reason, count - before[reason])
        run.record("lost_elsewhere", max(0, lost - sum(after.values()) + sum(before.values())))
        await until(lambda: stands(run, installed), within=10, what="as many states and policies as before")
        run.record("kernel_entries", "as before")


async def drops(run: Run) -> dict[str, int]:
    """Return the packets that the kernels dropped, by the node and the reason."""
    found = {f"{node}.{reason}": 0 for node in NODES for reason in REASONS.values()}
    for node in NODES:
        for line in (await run.lab.run_in(node, "cat", "/proc/net/xfrm_stat")).splitlines():
            name, count = line.split()
            if name in REASONS:
                found[f"{node}.{REASONS[name]}"] += int(count)
    return found


async def stands(run: Run, installed: list[str]) -> bool:
    """Return whether the kernels have as many states and policies as they had."""
    return await entries(run) == installed


async def entries(run: Run) -> list[str]:
    """Return how many states and policies each kernel has."""
    return [
        await run.lab.run_in(node, "ip", "xfrm", what, "count")
        for node in NODES
        for what in ("state", "policy")
    ]
