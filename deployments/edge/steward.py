"""The steward of an edge: looks, decides by the state machine, brings HAProxy to what was decided.

How things stand lies in `standing.json`, every change of it with its reason in `decisions.jsonl`. An
edge that starts takes over how things stand at the other edge, if that has decided more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from deployments.data.durable import replace_file
from deployments.edge import runtime
from deployments.edge.decision import (
    Decision,
    Order,
    Rules,
    Seen,
    Standing,
    decide,
    first,
    gives_up,
    is_kept,
    obey,
    server_states,
)
from deployments.edge.haproxy import SITE_CONNECT_MS
from deployments.edge.lease import end_lease
from deployments.edge.looking import LAP_S, Looker
from deployments.edge.primary import Move, move_for_room, move_for_silence
from deployments.edge.sight import Sight
from deployments.site.calling import Caller, CallFailed
from deployments.site.plan import HostPlan, Plan

_log = logging.getLogger("medrec.steward")

_ACTIVATION_TIMEOUT_S = 5.0
# How long Patroni may take to move the primary, and how long after an attempt there is no other.
_MOVE_TIMEOUT_S, _MOVE_PAUSE_S = 60.0, 30.0
# A cell that is down is not cut off before what was connecting to it has gone to the other one: HAProxy
# gives a connection so long, and waits as long again before the next try.
_CONNECTING_S = 2 * SITE_CONNECT_MS / 1000 + 0.2
_KEPT_DECISIONS = 500
# Decisions that no cell has put on record yet; each is in decisions.jsonl whatever becomes of it.
_UNTOLD = 200


class Steward:
    """One edge's steward, for one event loop."""

    def __init__(self, plan: Plan, own: HostPlan) -> None:
        self.plan, self.own = plan, own
        self.sight = Sight(plan.site)
        self.counts: Counter[str] = Counter()
        self.last: Decision | None = None
        self._caller = Caller(own.tls)
        self._looker = Looker(plan, own, self.sight, self._caller)
        self._told_cloud: int | None = None
        self._untold: deque[dict[str, Any]] = deque(maxlen=_UNTOLD)
        self._turn = asyncio.Lock()
        self._move: asyncio.Task[None] | None = None
        self._moved_at: float | None = None
        self._down_since: dict[str, float] = {}
        self._cut: set[str] = set()
        failover = plan.site.failover
        self.rules = Rules(
            failover.hold_s,
            failover.unfit_hold_s,
            plan.site.emergency.copy_limit_s,
            both=failover.serving == "both",
        )
        self.standing = self._read() or first(
            plan.site.cells, both=self.rules.both, now=time.time()
        )

    async def run(self) -> None:
        """Look, decide, act, until cancelled."""
        self._looker.start()
        try:
            while True:
                began = time.monotonic()
                try:
                    await self._lap()
                except Exception:  # what one lap meets is no reason to decide nothing any more
                    _log.exception("steward: a lap failed")
                await asyncio.sleep(max(0.05, LAP_S - (time.monotonic() - began)))
        finally:
            if self._move is not None:
                self._move.cancel()
                await asyncio.gather(self._move, return_exceptions=True)
            await self._looker.close()
            await self._caller.close()

    async def order(self, order: Order) -> Decision:
        """Follow an operator's order, or say why not."""
        async with self._turn:
            decision = obey(self.standing, self.sight.seen(), order, self.rules)
            self._take(decision)
        await self._act(self.sight.seen())
        return decision

    def status(self) -> dict[str, Any]:
        """Everything that it knows, as JSON values."""
        seen = self.sight.seen()
        return {
            "edge": self.own.name,
            "active": seen.is_active,
            "standing": _dumped(self.standing),
            "last": None
            if self.last is None
            else {"action": self.last.action, "reason": self.last.reason},
            "reached": self.sight.has_reached,
            "reaches": [cell.name for cell in seen.cells if cell.is_up],
            "cells": [asdict(cell) for cell in seen.cells],
            "cloud": None if seen.cloud is None else asdict(seen.cloud),
            "database": {
                name: {"role": m.get("role"), "state": m.get("state"), "lag_bytes": m.get("lag")}
                for name, m in self.sight.members().items()
            },
            "lag_s": self.sight.lags_s(),
            "etcd": dict(self.sight.etcd),
            "decisions": dict(self.counts),
        }

    async def _lap(self) -> None:
        self._learn()
        seen = self.sight.seen()
        if not self.sight.servers:
            return  # HAProxy has not answered: nothing is known, and nothing could be done.
        async with self._turn:
            self._take(decide(self.standing, seen, self.rules))
        if gives_up(self.standing, seen, self.rules):
            with self._going_on():
                await asyncio.to_thread(self.own.gives_up.touch)
        await self._act(seen)
        await self._cut_off()
        if seen.is_active:
            self._care_for_primary()
        await self._put_on_record(seen)

    async def _cut_off(self) -> None:
        """Close what a cell that is down still holds, once: its clients repeat it then."""
        now = time.monotonic()
        down = {name for name in self.plan.site.cells if not self.sight.is_up(name)}
        self._down_since = {name: self._down_since.get(name, now) for name in down}
        self._cut &= down
        for name in down - self._cut:
            if now - self._down_since[name] < _CONNECTING_S:
                continue
            try:
                await asyncio.to_thread(runtime.cut_off, self.own.haproxy_socket, name)
                self._cut.add(name)
            except runtime.RuntimeUnavailable as error:
                _log.warning("steward: %s", error)

    def _care_for_primary(self) -> None:
        """Have the primary moved off a host that is silent, or off a disk that fills up.

        In the background, one attempt at a time.
        """
        now = time.monotonic()
        if self._moved_at is not None and now - self._moved_at < _MOVE_PAUSE_S:
            return
        if self._move is not None and not self._move.done():
            return
        members, limit_s = self.sight.members(), self.plan.site.database.silence_s
        if (move := move_for_silence(members, self.sight.spoken(), limit_s)) is not None:
            action, task = "end-lease", self._end_lease(move)
        elif (move := move_for_room(members, self.sight.disks())) is not None:
            action, task = "move-primary", self._switch_over(move)
        else:
            return
        self._moved_at = now
        self.counts[action] += 1
        self._write(action, move.reason)
        self._move = asyncio.create_task(task)

    async def _end_lease(self, move: Move) -> None:
        try:
            await end_lease(self._caller, self.plan, move.leader)
        except CallFailed as error:
            # It ends by itself in time, as it would have without an edge.
            _log.warning("steward: the lease of %s was not ended: %s", move.leader, error)

    async def _switch_over(self, move: Move) -> None:
        leader = self.plan.hosts[move.leader]
        body = {"leader": move.leader, "candidate": move.candidate}
        try:
            words = await self._caller.post_text(
                leader, leader.ports.patroni, "/switchover", body, timeout_s=_MOVE_TIMEOUT_S
            )
            _log.info("steward: Patroni: %s", words)
        except CallFailed as error:
            _log.warning("steward: the primary was not moved: %s", error)

    async def _put_on_record(self, seen: Seen) -> None:
        """Have a cell that answers put what was decided into the audit; later, if none does."""
        up = [cell.name for cell in seen.cells if cell.is_up]
        if self.standing.mode == "emergency" and seen.cloud is not None and seen.cloud.is_up:
            up = [seen.cloud.name]
        while self._untold and up:
            host = self.plan.hosts[up[0]]
            body = {"action": "site-decision", "details": self._untold[0]}
            try:
                await self._caller.ask(
                    host, host.ports.api_tls, "/internal/acts", timeout_s=1.0, body=body,
                    permitted=(204,),
                )  # fmt: skip
            except CallFailed:
                return
            self._untold.popleft()

    def _learn(self) -> None:
        """Agree with the other edge, where it has decided more: on its word, or on this edge's own."""
        value = self.sight.others_word
        try:
            told, other = _loaded(value["standing"]), str(value["edge"])
        except (KeyError, TypeError, AttributeError):
            return  # Nothing was told, or nothing that can be read.
        own, seen = self.standing, self.sight.seen()
        if told.number > own.number:
            keeps = is_kept(own, told, seen)
        elif told.number == own.number and _how(told) != _how(own):
            # Both decided at once. One of them counts on, and the other takes that over.
            same = seen.is_active == self.sight.other_is_active
            keeps = self.own.name < other if same else seen.is_active
            if not keeps:
                return
        else:
            return
        if keeps:
            self.standing = replace(own, number=told.number + 1)
            self._write("keep", f"{other} had it otherwise ({told.reason}): {own.reason}")
        else:
            has_served = told.has_served or own.has_served
            self.standing = replace(told, has_served=has_served)
            self._write("learn", f"as {other} has it: {told.reason}")

    def _take(self, decision: Decision) -> None:
        self.last = decision
        changed = decision.standing.number != self.standing.number
        first_served = decision.standing.has_served and not self.standing.has_served
        self.standing = decision.standing
        if first_served and not changed:
            self._keep()
        if changed or decision.action == "refuse":
            self.counts[decision.action] += 1
            self._write(decision.action, decision.reason)

    async def _act(self, seen: Seen) -> None:
        """Bring HAProxy, and the emergency cell, to how things stand."""
        try:
            states = server_states(self.standing, seen, both=self.rules.both)
            changes = await asyncio.to_thread(
                runtime.bring_about, self.own.haproxy_socket, await self._opened(states)
            )
            for change in changes:
                _log.info("steward: %s", change)
        except runtime.RuntimeUnavailable as error:
            _log.warning("steward: %s", error)

    async def _opened(self, states: dict[str, Any]) -> dict[str, Any]:
        """The same states; the emergency cell is opened only once it knows that it serves."""
        cloud = self.plan.cloud
        if cloud is None:
            return states
        wanted = self.standing.number if self.standing.mode == "emergency" else None
        if wanted == self._told_cloud or (wanted is None and not self.sight.is_up(cloud.name)):
            return states
        path = "/internal/emergency/" + ("end" if wanted is None else "activate")
        body = {"reason": self.standing.reason, "since": self.standing.since}
        try:
            await self._caller.ask(
                cloud, cloud.ports.api_tls, path, timeout_s=_ACTIVATION_TIMEOUT_S, body=body,
                permitted=(200, 201, 204),
            )  # fmt: skip
            self._told_cloud = wanted
        except CallFailed as error:
            _log.warning("steward: %s", error)
            if wanted is not None:
                return {**states, cloud.name: "drain"}
        return states

    def _write(self, action: str, reason: str) -> None:
        _log.info("steward: %s: %s", action, reason)
        self._untold.append(
            {
                "at": time.time(),
                "decision": action,
                "reason": reason[:400],
                "mode": self.standing.mode,
                "serving": " ".join(self.standing.serving),
            }
        )
        # What was decided, or refused, has a reason of its own.
        values = {**_dumped(self.standing), "at": time.time(), "action": action, "reason": reason}
        self._keep()
        log = self._file("decisions.jsonl")
        with self._going_on():
            lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
            lines = [*lines[-_KEPT_DECISIONS:], json.dumps(values), ""]
            replace_file(log, "\n".join(lines).encode())

    def _keep(self) -> None:
        with self._going_on():
            replace_file(self._file("standing.json"), json.dumps(_dumped(self.standing)).encode())

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """A disk that is full or read-only costs the memory of what was decided, not the deed."""
        try:
            yield
        except (OSError, UnicodeDecodeError) as error:
            self.counts["unwritten"] += 1
            _log.error("steward: not written: %s", error)

    def _read(self) -> Standing | None:
        try:
            return _loaded(json.loads(self._file("standing.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _file(self, name: str) -> Path:
        return self.own.folder / name


def _how(standing: Standing) -> tuple[object, ...]:
    """What clients and operators notice of it."""
    return standing.mode, standing.serving, standing.drained, standing.retired


def _dumped(standing: Standing) -> dict[str, Any]:
    values = asdict(standing)
    for name in ("drained", "retired", "serving"):
        values[name] = sorted(values[name])
    return values


def _loaded(values: dict[str, Any]) -> Standing:
    # What another version wrote may lack a field, or have one more.
    known = {name: values[name] for name in Standing.__dataclass_fields__ if name in values}
    sets = {name: frozenset(known[name]) for name in ("drained", "retired")}
    return replace(
        Standing(**{**known, **sets}), serving=tuple(known["serving"]), silent_since=None
    )
