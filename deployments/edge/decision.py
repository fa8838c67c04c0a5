"""Who serves: the one state machine of a site. What an edge sees and how things stand go in, an action
with its reason in a sentence comes out, and how things stand afterwards.

Pure: no clock, no socket. HAProxy moves traffic within its checks by itself; this decides what it may
move to, that nothing moves back by itself, and when the emergency cell is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Mode = Literal["normal", "emergency"]
Action = Literal["keep", "wait", "serve", "retire", "emergency", "refuse"]
OrderKind = Literal["serve", "both", "drain", "emergency", "return"]
_HEARD_HOLDS = 4


@dataclass(frozen=True, slots=True)
class CellSeen:
    """One cell: whether it passes its checks, and what makes it unfit to take over, a sentence each.

    `is_heard`: it has told its condition in the last seconds, however slowly.
    """

    name: str
    is_up: bool
    faults: tuple[str, ...] = ()
    is_heard: bool = False


@dataclass(frozen=True, slots=True)
class CloudSeen:
    """The emergency cell and the age of its copy in seconds; None: it does not say."""

    name: str
    is_up: bool
    copy_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What one edge sees. `now` is Unix time; cells with the primary first.

    `is_active`: this edge has the clients' address; `follows`: the other has it, and was heard lately.
    `others_reach`: cells that the other edge reaches. `is_starting`: the edges have begun to look a
    while ago, and no cell has been up since.
    """

    now: float
    cells: tuple[CellSeen, ...]
    cloud: CloudSeen | None = None
    is_active: bool = True
    others_reach: frozenset[str] = frozenset()
    follows: bool = False
    is_starting: bool = False

    def cell(self, name: str) -> CellSeen | None:
        """The cell of that name."""
        return next((cell for cell in self.cells if cell.name == name), None)


@dataclass(frozen=True, slots=True)
class Rules:
    """Figures of the site file: seconds, and the promised age of the copy.

    `both`: HAProxy is rendered for both cells at once, none a backup of the other.
    """

    hold_s: float
    unfit_hold_s: float
    copy_limit_s: float
    both: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand. `drained`: by an operator; `retired`: lost once, and not yet called back.

    `has_served`: a cell has been seen to serve. A site that only starts is no emergency.
    `ordered`: by an operator, which goes before whatever an edge has decided by itself.
    """

    mode: Mode
    serving: tuple[str, ...]
    since: float
    reason: str
    drained: frozenset[str] = frozenset()
    retired: frozenset[str] = frozenset()
    silent_since: float | None = None
    number: int = 0
    has_served: bool = False
    ordered: bool = False

    @property
    def aside(self) -> frozenset[str]:
        """Cells that take over from nobody until an operator calls them back."""
        return self.drained | self.retired


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator wants. `is_forced`: whatever the data of the other side are like."""

    kind: OrderKind
    cell: str = ""
    is_forced: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, why, and how things stand then."""

    action: Action
    reason: str
    standing: Standing


def first(cells: Sequence[str], *, both: bool, now: float) -> Standing:
    """How a site begins: its primary serves, or all cells."""
    serving = tuple(cells) if both else tuple(cells[:1])
    return Standing("normal", serving, now, f"{_and(serving)} serves from the start")


def decide(standing: Standing, seen: Seen, rules: Rules) -> Decision:
    """What to do now. `keep` and `wait` leave the standing's number as it is."""
    found = _decided(standing, seen, rules)
    if seen.follows and found.standing.number != standing.number:
        # What is lost to this edge alone, whom no client asks, is not lost.
        waiting = replace(standing, silent_since=standing.silent_since or seen.now)
        return Decision("wait", f"{found.reason}: the edge that has the address decides", waiting)
    return found


def gives_up(standing: Standing, seen: Seen, rules: Rules) -> bool:
    """Whether the clients' address is better off at the other edge: that one alone reaches a cell."""
    return (
        standing.mode == "normal"
        and seen.is_active
        and bool(seen.others_reach)
        and not any(cell.is_up for cell in seen.cells)
        and standing.silent_since is not None
        and seen.now - standing.silent_since >= rules.hold_s
    )


def is_kept(own: Standing, told: Standing, seen: Seen) -> bool:
    """Whether things stand as `own` has it though the other edge has decided more, as `told` has it.

    An order goes before all, and so does the edge that the clients ask. Else what serves here, answers
    and has served since before the other one changed its mind goes on.
    """
    is_served = bool(own.serving) and all(
        (cell := seen.cell(name)) is not None and cell.is_up for name in own.serving
    )
    return is_served and not told.ordered and not seen.follows and own.since <= told.since


def _decided(standing: Standing, seen: Seen, rules: Rules) -> Decision:
    if standing.mode == "emergency":
        return _in_emergency(standing, seen)
    up = [c for c in standing.serving if (cell := seen.cell(c)) is not None and cell.is_up]
    if len(up) == len(standing.serving) and up:
        served = replace(standing, silent_since=None, has_served=True)
        return Decision("keep", f"{_and(up)} answers", served)
    lost = frozenset(standing.serving) - set(up)
    if up:
        reason = f"{_and(lost)} does not answer; {_and(up)} goes on serving"
        return _moved("retire", reason, standing, seen, tuple(up), lost)
    return _instead(standing, seen, rules, lost)


def _instead(standing: Standing, seen: Seen, rules: Rules, lost: frozenset[str]) -> Decision:
    """None of those that serve answers."""
    since = seen.now if standing.silent_since is None else standing.silent_since
    silent_s = max(0.0, seen.now - since)
    waiting = replace(standing, silent_since=since)
    others = [
        cell
        for cell in seen.cells
        if cell.is_up and cell.name not in standing.serving and cell.name not in standing.drained
    ]
    gone = f"{_and(lost)} does not answer"
    for cell in others:
        if not cell.faults:
            reason = f"{gone}; {cell.name} is fit: its database, blobs and models are whole"
            return _moved("serve", reason, standing, seen, (cell.name,), lost)
    for cell in others:
        faults = "; ".join(cell.faults)
        if silent_s >= rules.unfit_hold_s:
            reason = f"{gone} for {silent_s:.0f} s; {cell.name} serves although {faults}"
            return _moved("serve", reason, standing, seen, (cell.name,), lost)
        left_s = rules.unfit_hold_s - silent_s
        reason = f"{gone}; {cell.name} is not fit yet: {faults}; it has {left_s:.0f} s more"
        return Decision("wait", reason, waiting)
    for cell in seen.cells:
        if cell.is_up and cell.name in standing.drained:
            return _drained_serves(cell, gone, silent_s, waiting, seen, rules, lost)
    heard = [c.name for c in seen.cells if c.is_heard and c.name not in standing.drained]
    heard_hold_s = _HEARD_HOLDS * rules.unfit_hold_s
    if heard and silent_s < heard_hold_s:
        # A machine that is overrun is not lost: emergency would take away what still works. One whose
        # models do not load is heard as well, and for ever.
        left_s = heard_hold_s - silent_s
        reason = f"{_and(heard)} fails its checks, but is heard; it has {left_s:.0f} s more"
        return Decision("wait", reason, waiting)
    if not standing.has_served:
        return Decision("wait", "no cell has served yet: the site is being started", waiting)
    if seen.is_starting:
        # After a power cut edges are back in seconds, cells in minutes.
        return Decision("wait", "the site is being started: no cell is up yet", waiting)
    if silent_s < rules.hold_s:
        return Decision("wait", f"no cell answers, for {silent_s:.1f} s now", waiting)
    return _to_emergency(waiting, seen, rules, f"no cell has answered for {silent_s:.0f} s")


def _drained_serves(
    cell: CellSeen,
    gone: str,
    silent_s: float,
    waiting: Standing,
    seen: Seen,
    rules: Rules,
    lost: frozenset[str],
) -> Decision:
    """Nobody else is left: a cell that was drained, for maintenance that is over or by a UPS, serves."""
    hold_s = rules.unfit_hold_s if cell.faults else rules.hold_s
    faults = "".join(f"; {fault}" for fault in cell.faults)
    if silent_s < hold_s:
        left_s = hold_s - silent_s
        reason = f"{gone}; {cell.name} answers, but was drained{faults}; it has {left_s:.0f} s more"
        return Decision("wait", reason, waiting)
    reason = f"{gone} for {silent_s:.0f} s; {cell.name} serves although it was drained{faults}"
    called_back = replace(waiting, drained=waiting.drained - {cell.name})
    return _moved("serve", reason, called_back, seen, (cell.name,), lost)


def _to_emergency(standing: Standing, seen: Seen, rules: Rules, why: str) -> Decision:
    cloud = seen.cloud
    if cloud is None:
        return Decision("wait", f"{why}, and this site has no emergency cell", standing)
    if not cloud.is_up:
        return Decision("wait", f"{why}, and the emergency cell does not answer either", standing)
    if theirs := seen.others_reach - standing.drained:
        reach = _and(sorted(theirs))
        return Decision("wait", f"{why}, but the other edge reaches {reach}", standing)
    if not seen.is_active:
        return Decision("wait", f"{why}; the edge that has the address decides", standing)
    after = replace(
        standing,
        mode="emergency",
        serving=(),
        since=seen.now,
        reason=f"{why}; {_missing(cloud, rules)}",
        retired=standing.retired | {cell.name for cell in seen.cells},
        silent_since=None,
        number=standing.number + 1,
        ordered=False,
    )
    return Decision("emergency", after.reason, after)


def _missing(cloud: CloudSeen, rules: Rules) -> str:
    """What the copy may lack, as it is told at the take-over."""
    if cloud.copy_age_s is None:
        return f"{cloud.name} cannot say how old its copy is: anything recent may be missing"
    told = f"what was written in the last {cloud.copy_age_s:.0f} s may be missing at {cloud.name}"
    over = cloud.copy_age_s > rules.copy_limit_s
    return told + (f", which is over the limit of {rules.copy_limit_s:.0f} s" if over else "")


def _in_emergency(standing: Standing, seen: Seen) -> Decision:
    back = [cell.name for cell in seen.cells if cell.is_up]
    if back:
        return Decision(
            "keep", f"{_and(back)} answers again; an operator's return ends emergency", standing
        )
    return Decision("keep", "emergency goes on: no cell answers", standing)


def obey(standing: Standing, seen: Seen, order: Order, rules: Rules) -> Decision:
    """What an operator's order comes to; `refuse` says why it cannot be followed."""
    known = [cell.name for cell in seen.cells]
    if order.kind in ("serve", "drain", "return") and order.cell not in known:
        return _refused(standing, f"there is no cell {order.cell}: {', '.join(known)}")
    if order.kind == "emergency":
        decision = _to_emergency(
            standing,
            replace(seen, is_active=True, others_reach=frozenset()),
            rules,
            "an operator ordered emergency",
        )
        if decision.action != "emergency":
            return _refused(standing, decision.reason)
        return replace(decision, standing=replace(decision.standing, ordered=True))
    if order.kind == "drain":
        return _drain(standing, seen, order)
    if standing.mode == "emergency" and order.kind != "return":
        return _refused(standing, "emergency goes on: `medrec site return` ends it")
    if standing.mode == "normal" and order.kind == "return":
        return _refused(standing, "this is no emergency: `medrec site handover` moves traffic")
    if order.kind == "both" and not rules.both:
        return _refused(
            standing,
            "one cell is the other's backup here: set `failover.serving: both`, render, reload",
        )
    wanted = known if order.kind == "both" else [order.cell]
    if problem := _unfit(seen, wanted, forced=order.is_forced):
        return _refused(standing, problem)
    reason = f"an operator ordered that {_and(wanted)} serves"
    before = frozenset(known) - set(wanted)
    after = replace(
        standing,
        mode="normal",
        serving=tuple(wanted),
        since=seen.now,
        reason=reason,
        drained=standing.drained - set(wanted),
        # The others stand by again if they are whole; a lost one has to be called back by name.
        retired=(standing.retired & before) if order.kind != "return" else frozenset(),
        silent_since=None,
        number=standing.number + 1,
        ordered=True,
    )
    return Decision("serve", reason, after)


def _drain(standing: Standing, seen: Seen, order: Order) -> Decision:
    """Take a cell out of service; another must be able to take what it serves."""
    others = [c.name for c in seen.cells if c.name != order.cell and c.name not in standing.drained]
    serving = tuple(name for name in standing.serving if name != order.cell)
    if not serving and standing.mode == "normal":
        for name in others:
            if not _unfit(seen, [name], forced=order.is_forced):
                serving = (name,)
                break
        else:
            problem = _unfit(seen, others, forced=order.is_forced) or "no other cell is left"
            return _refused(standing, f"{order.cell} cannot be drained: {problem}")
    reason = f"an operator drained {order.cell}" + (f"; {_and(serving)} serves" if serving else "")
    after = replace(
        standing,
        serving=serving,
        since=seen.now,
        reason=reason,
        drained=standing.drained | {order.cell},
        retired=standing.retired - set(serving),
        number=standing.number + 1,
        ordered=True,
    )
    return Decision("serve", reason, after)


def _unfit(seen: Seen, names: Sequence[str], *, forced: bool) -> str | None:
    for name in names:
        cell = seen.cell(name)
        if cell is None or not cell.is_up:
            return f"{name} does not answer"
        if cell.faults and not forced:
            return f"{name} is not fit: {'; '.join(cell.faults)}"
    return None


def _moved(
    action: Action,
    reason: str,
    standing: Standing,
    seen: Seen,
    serving: tuple[str, ...],
    lost: frozenset[str],
) -> Decision:
    after = replace(
        standing,
        serving=serving,
        since=seen.now,
        reason=reason,
        retired=(standing.retired | lost) - set(serving),
        silent_since=None,
        number=standing.number + 1,
        ordered=False,
    )
    return Decision(action, reason, after)


def _refused(standing: Standing, reason: str) -> Decision:
    return Decision("refuse", reason, standing)


ServerState = Literal["ready", "drain"]


def server_states(standing: Standing, seen: Seen, *, both: bool = False) -> dict[str, ServerState]:
    """The state that HAProxy should have of each server; `both` as in `Rules`.

    A cell that stands by is ready (HAProxy's `backup`) as long as it is fit, so that no decision is
    waited for when the one that serves is lost. Where none is a backup it would draw its share.
    """
    states: dict[str, ServerState] = {}
    for cell in seen.cells:
        kept_out = cell.name in standing.aside
        stands_by = not kept_out and not cell.faults and not both
        serves = cell.name in standing.serving or (stands_by and _may_back_up(cell, standing, seen))
        states[cell.name] = "ready" if standing.mode == "normal" and serves else "drain"
    if seen.cloud is not None:
        states[seen.cloud.name] = "ready" if standing.mode == "emergency" else "drain"
    return states


def _may_back_up(cell: CellSeen, standing: Standing, seen: Seen) -> bool:
    """Whether HAProxy takes it for a backup: the first cell is none, and would draw the traffic."""
    return cell.name != seen.cells[0].name or cell.name in standing.serving


def _and(names: Sequence[str] | frozenset[str]) -> str:
    return " and ".join(sorted(names)) if names else "nobody"
