"""Every fault that can be made of a local site, and how it is undone; for real, not in part."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from deployments.cell.state import CellError
from deployments.edge.decision import Order, OrderKind
from deployments.edge.drills.scene import Cast, Scene, send
from deployments.edge.primary import standbys_of
from deployments.site import fake_time
from deployments.site.disks import FILLER

Need = Literal["", "namespaces", "fake-time", "small-disk"]
_JUMP_S = 3600
_TABLE = "medrec_drill"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: `begin` makes it, `end` undoes it. `survivors`: what is left to serve.

    `before` is what must have happened first, under load too; waits are counted from `begin`, which
    may return the moment (monotonic seconds) since which what it hits answers nobody: its end otherwise.
    `interrupts`: for seconds nobody has the clients' address, and who connects then is refused.
    """

    name: str
    title: str
    begin: Callable[[Scene, Cast], float | None]
    end: Callable[[Scene, Cast], None]
    survivors: Literal["cell", "emergency"] = "cell"
    need: Need = ""
    interrupts: bool = False
    before: Callable[[Scene, Cast], None] | None = None


def _nothing(scene: Scene, cast: Cast) -> None:
    """It mends itself: what was killed is started again."""


def _etcd_besides(scene: Scene, cast: Cast) -> str:
    """An etcd member that may be lost with a machine: never that of the edge that serves."""
    names = [host.name for host in scene.plan.etcd if host.name != cast.active_edge]
    return names[-1]


def _lose_machine(scene: Scene, cast: Cast) -> float:
    silent: float = scene.ask("lose", [cast.serving])
    scene.ask("kill", _etcd_besides(scene, cast), "etcd")
    return silent


def _restore_serving(scene: Scene, cast: Cast) -> None:
    scene.ask("restore", cast.serving)


def _lose_both(scene: Scene, cast: Cast) -> float:
    silent: float = scene.ask("lose", list(scene.plan.site.cells))
    return silent


def _restore_both(scene: Scene, cast: Cast) -> None:
    bring_back(scene, cast, scene.plan.site.cells)


def bring_back(scene: Scene, cast: Cast, cells: Sequence[str]) -> None:
    """Give the cells their power back, wait until they are up, and end the emergency."""
    for cell in cells:
        scene.ask("restore", cell)
    scene.wait(lambda: all(c["is_up"] for c in scene.told()["cells"] if c["name"] in cells), 420)
    # A machine that was back before anybody decided needs no return.
    is_emergency = scene.told()["standing"]["mode"] == "emergency"
    kind: OrderKind = "return" if is_emergency else "serve"
    scene.inside.order(Order(kind, cast.serving, is_forced=True))


def _partition(scene: Scene, cast: Cast, *, both_ways: bool) -> None:
    """Frames between the Macs are dropped: those that the serving one would get, or all."""
    other = cast.other
    if other is None:
        raise CellError("there is one cell only")
    address = scene.host(other).address
    scene.on(cast.serving, "nft", "add", "table", "inet", _TABLE)
    for hook, word in (("input", "saddr"), *((("output", "daddr"),) if both_ways else ())):
        chain = f"{{ type filter hook {hook} priority 0 ; }}"
        scene.on(cast.serving, "nft", "add", "chain", "inet", _TABLE, hook, chain)
        scene.on(
            cast.serving, "nft", "add", "rule", "inet", _TABLE, hook, "ip", word, address, "drop"
        )


def _join(scene: Scene, cast: Cast) -> None:
    scene.on(cast.serving, "nft", "delete", "table", "inet", _TABLE)


def _kill_replica(scene: Scene, cast: Cast, deployment: str) -> None:
    found = scene.replicas(cast.serving, deployment)
    if not found:
        raise CellError(f"{cast.serving} has no replica of {deployment}")
    send(found[:1], signal.SIGKILL)


def _engines(scene: Scene) -> str:
    return "ai:gemma3-demo"


def _kill_primary(scene: Scene, cast: Cast) -> None:
    # PostgreSQL is no child of Patroni, and outlives it.
    pids = scene.postgres(cast.primary)
    scene.ask("kill", cast.primary, "patroni")
    send(pids, signal.SIGKILL)


def _kill_postgres(scene: Scene, host: str) -> None:
    send(scene.postgres(host)[:1], signal.SIGKILL)


def _kill_standby(scene: Scene, cast: Cast) -> None:
    if cast.standby is None:
        raise CellError("PostgreSQL has no standby")
    _kill_postgres(scene, cast.standby)
    # Patroni takes the standby out of the synchronous ones before writes go on alone.
    scene.wait(lambda: not _stands_by(scene), 20)
    scene.wait(lambda: _stands_by(scene), 120)


def _stands_by(scene: Scene) -> bool:
    try:
        return bool(standbys_of(scene.inside.cluster()))
    except CellError:
        return False


def _fill_disk(scene: Scene, cast: Cast) -> None:
    folder = scene.host(cast.primary).database.parent
    with (folder / FILLER).open("wb") as stream:
        block = bytes(2**20)
        try:
            while True:
                stream.write(block)
                stream.flush()
        except OSError:
            return  # It is full now.


def _free_disk(scene: Scene, cast: Cast) -> None:
    (scene.host(cast.primary).database.parent / FILLER).unlink(missing_ok=True)


def _jump(scene: Scene, cast: Cast) -> None:
    if cast.serving != scene.plan.cells[0].name:
        raise CellError(f"{cast.serving} serves: only the first cell's clock can jump")
    fake_time.set_offset(scene.host(cast.serving), _JUMP_S)


def _jump_back(scene: Scene, cast: Cast) -> None:
    fake_time.set_offset(scene.host(cast.serving), 0)


def _freeze_postgres(scene: Scene, cast: Cast) -> None:
    send(scene.postgres(cast.primary), signal.SIGSTOP)


def _thaw_postgres(scene: Scene, cast: Cast) -> None:
    send(scene.postgres(cast.primary), signal.SIGCONT)


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault(
            "machine-lost",
            "the serving machine loses its power: cell, PostgreSQL, and an etcd member with it",
            _lose_machine,
            _restore_serving,
        ),
        Fault(
            "machine-frozen",
            "every process of the serving machine stops, its sockets stay open",
            lambda scene, cast: scene.ask("freeze", [cast.serving]),
            lambda scene, cast: scene.ask("thaw", cast.serving),
        ),
        Fault(
            "partition",
            "no packet passes between the Macs",
            lambda scene, cast: _partition(scene, cast, both_ways=True),
            _join,
            need="namespaces",
        ),
        Fault(
            "partition-asymmetric",
            "packets pass between the Macs in one direction only",
            lambda scene, cast: _partition(scene, cast, both_ways=False),
            _join,
            need="namespaces",
        ),
        Fault(
            "cell-killed",
            "kill -9 of the serving cell: Ray and every replica",
            lambda scene, cast: scene.ask("kill", cast.serving, "cell"),
            _nothing,
        ),
        Fault(
            "engine-killed",
            "kill -9 of an engine replica",
            lambda scene, cast: _kill_replica(scene, cast, _engines(scene)),
            _nothing,
        ),
        Fault(
            "api-killed",
            "kill -9 of an API replica",
            lambda scene, cast: _kill_replica(scene, cast, "api:api"),
            _nothing,
        ),
        Fault(
            "postgres-killed",
            "kill -9 of PostgreSQL's primary and its Patroni",
            _kill_primary,
            _nothing,
        ),
        Fault(
            "postgres-frozen",
            "every process of PostgreSQL's primary stops",
            _freeze_postgres,
            _thaw_postgres,
        ),
        Fault(
            "standby-then-primary",
            "kill -9 of the standby's PostgreSQL, and once it is back, of the primary's",
            lambda scene, cast: _kill_postgres(scene, cast.primary),
            _nothing,
            before=_kill_standby,
        ),
        Fault(
            "both-lost",
            "both machines lose their power",
            _lose_both,
            _restore_both,
            survivors="emergency",
        ),
        Fault(
            "edge-killed",
            "the active edge loses its power",
            lambda scene, cast: scene.ask("lose", [cast.active_edge]),
            lambda scene, cast: scene.ask("restore", cast.active_edge),
            need="namespaces",
            interrupts=True,
        ),
        Fault(
            "edge-reloaded",
            "HAProxy of the active edge reads its configuration again",
            lambda scene, cast: scene.ask("reload", cast.active_edge, "haproxy"),
            _nothing,
        ),
        Fault(
            "etcd-killed",
            "kill -9 of an etcd member",
            lambda scene, cast: scene.ask("kill", _etcd_besides(scene, cast), "etcd"),
            _nothing,
        ),
        Fault(
            "disk-full",
            "the disk under PostgreSQL's primary is full",
            _fill_disk,
            _free_disk,
            need="small-disk",
        ),
        Fault(
            "clock-jump",
            "the serving machine's clock jumps an hour ahead, for Python and PostgreSQL",
            _jump,
            _jump_back,
            need="fake-time",
        ),
    )
}


def _hand_over(scene: Scene, cast: Cast) -> None:
    scene.inside.order(Order("drain", cast.serving))
    if cast.primary == cast.serving and cast.standby is not None:
        scene.inside.switch_over(cast.primary, cast.standby)


def _take_back(scene: Scene, cast: Cast) -> None:
    scene.wait(lambda: _stands_by(scene), 120)
    scene.inside.order(Order("serve", cast.serving))
    if cast.primary == cast.serving and cast.standby is not None:
        scene.inside.switch_over(cast.standby, cast.primary)


# What a real site's drills do: by orders, since nobody pulls a plug from a timer.
ORDERED: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault(
            "handover",
            "traffic and PostgreSQL's primary are moved to the other cell, and back",
            _hand_over,
            _take_back,
        ),
        Fault(
            "emergency-ordered",
            "an operator orders emergency, and its end",
            lambda scene, cast: _ordered(scene, Order("emergency")),
            lambda scene, cast: _ordered(scene, Order("return", cast.serving)),
            survivors="emergency",
        ),
    )
}


def _ordered(scene: Scene, order: Order) -> None:
    scene.inside.order(order)
