"""Memory is measured per virtual node, from the controller's list of replicas."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from typing import Any

import psycopg

from configs.args import Resources
from configs.budgets import Budget, actor_resources, ray_resources
from deployments.data.postgres import OWNER, LocalServer
from deployments.memory import (
    GB,
    Charge,
    Processes,
    Replica,
    measure,
    memory_budgets_gb,
    replicas_of,
    resident_gb,
)


def replica(name: str, pid: int, pool: str = "ai", reserved_gb: float = 1.0) -> Replica:
    return Replica("app", name, f"actor-{name}", f"name-{name}", pid, pool, reserved_gb, True)


def details(resources: dict[str, float], pid: int | None = 7, state: str = "RUNNING") -> Any:
    one = {"pid": pid, "actor_id": "a1", "actor_name": "SERVE_REPLICA::x", "state": state}
    config = {"ray_actor_options": {"num_cpus": 0, "resources": resources}}
    deployment = {"deployment_config": config, "replicas": [one]}
    return {"applications": {"ai": {"deployments": {"gemma3-demo": deployment}}}}


def test_a_replica_belongs_to_the_node_whose_memory_it_draws() -> None:
    drawn = actor_resources("data", Resources(memory_gb=1.5, cpu=0.25))
    [found] = replicas_of(details(drawn))
    assert (found.pool, found.reserved_gb) == ("data", 1.5)
    assert (found.application, found.deployment, found.pid) == ("ai", "gemma3-demo", 7)


def test_a_replica_without_a_process_or_a_node_is_not_counted() -> None:
    drawn = actor_resources("ai", Resources(memory_gb=1.0, cpu=0.25))
    assert replicas_of(details(drawn, pid=None)) == []
    assert replicas_of(details({})) == []


def test_a_starting_replica_counts_but_does_not_run() -> None:
    drawn = actor_resources("ai", Resources(memory_gb=1.0, cpu=0.25))
    [found] = replicas_of(details(drawn, state="STARTING"))
    assert not found.is_running


def test_budgets_are_those_that_the_running_ray_was_given() -> None:
    none = Budget(memory_gb=0, metal_cores=0, cpu=0, neural_cores=0)
    ai = Budget(memory_gb=13.5, metal_cores=0, cpu=1, neural_cores=0)
    given = ray_resources({"ai": ai, "api": none, "data": none})
    assert memory_budgets_gb({"CPU": 2.0, **given}) == {"ai": 13.5}


def test_use_adds_replicas_charges_and_metal_memory() -> None:
    rss = {1: 1.0, 2: 0.5, 3: 0.25}
    uses, gone = measure(
        {"ai": 4.0, "api": 1.0},
        [replica("a", 1), replica("b", 2, "api")],
        [Charge("haproxy", "api", 3)],
        {1: 2.0},
        rss.get,
    )
    assert uses["ai"].used_gb == 3.0
    assert uses["ai"].share == 0.75
    assert uses["api"].used_gb == 0.75
    assert uses["api"].charges == (("haproxy", 0.25),)
    assert gone == frozenset()


def test_a_replica_whose_process_is_gone_is_named() -> None:
    uses, gone = measure({"ai": 4.0}, [replica("a", 1), replica("b", 2)], [], {}, {2: 1.0}.get)
    assert gone == {"actor-a"}
    assert [entry.replica.deployment for entry in uses["ai"].replicas] == ["b"]


def test_resident_memory_counts_children_and_sees_the_end() -> None:
    hold = (
        "import sys; block = bytearray(64 << 20); print(len(block), flush=True); sys.stdin.read()"
    )
    alone_gb = Processes().resident_gb(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with_child_gb = Processes().resident_gb(os.getpid())
        own_gb = resident_gb(child.pid)
        assert alone_gb is not None
        assert with_child_gb is not None
        assert own_gb is not None
        assert own_gb > 64 / 1024
        assert with_child_gb > alone_gb + 60 / 1024
        child.communicate(timeout=10)
    assert resident_gb(child.pid) is None


def test_a_pid_that_never_was_has_no_memory() -> None:
    assert resident_gb(2**22 + 1) is None
    assert Processes().resident_gb(2**22 + 1) is None


def test_what_postgresqls_processes_share_is_counted_once(postgres: LocalServer) -> None:
    """Eight connections that have read the same buffers: as many times their size otherwise."""
    server = postgres.running()
    assert server is not None
    size = 30 * 2**20
    with ExitStack() as stack:
        open_one = partial(psycopg.connect, postgres.dsn(OWNER, "postgres"), autocommit=True)
        first = stack.enter_context(open_one())
        try:
            first.execute("CREATE TABLE buffers AS SELECT generate_series(1, 1000000)")
            for _ in range(7):
                other = stack.enter_context(open_one())
                other.execute("SELECT count(*) FROM buffers")
            used_gb = Processes().resident_gb(server.pid)
            naive_gb = sum(resident_gb(pid) or 0.0 for pid in postgres.pids())
        finally:
            first.execute("DROP TABLE buffers")
    assert used_gb is not None
    assert naive_gb - used_gb > 5 * size / GB
    assert used_gb > (resident_gb(server.pid) or 0.0)
