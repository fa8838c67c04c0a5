"""The budgets are declared once, scaled by share, and the same in Ray's words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.args import Resources
from configs.budgets import (
    POOLS,
    RESOURCES,
    Budget,
    actor_resources,
    amount,
    asked,
    plan,
    ray_resources,
    scaled,
)
from configs.budgets import (
    given as given_here,
)


def test_the_plan_is_the_one_that_was_decided() -> None:
    nodes = plan().nodes
    assert plan().machine == Budget(memory_gb=512, metal_cores=80, cpu=32, neural_cores=32)
    assert [nodes[pool].memory_gb for pool in POOLS] == [300, 100, 100]
    assert [nodes[pool].metal_cores for pool in POOLS] == [50, 15, 15]
    assert [nodes[pool].cpu for pool in POOLS] == [16, 8, 8]
    assert [nodes[pool].neural_cores for pool in POOLS] == [20, 6, 6]


def test_the_machine_of_the_plan_gets_the_absolutes() -> None:
    assert scaled(plan().machine) == dict(plan().nodes)


def test_a_smaller_machine_keeps_the_shares() -> None:
    budgets = scaled(Budget(memory_gb=16, metal_cores=8, cpu=2, neural_cores=16))
    assert budgets["ai"] == Budget(memory_gb=9.375, metal_cores=5, cpu=1, neural_cores=10)
    assert budgets["api"].cpu == 0.5


@given(st.tuples(*(st.floats(0, 4096, allow_nan=False) for _ in RESOURCES)))
def test_the_nodes_never_get_more_than_the_machine_has(amounts: tuple[float, ...]) -> None:
    machine = Budget(*amounts)
    budgets = scaled(machine)
    for name in RESOURCES:
        given_out = sum(getattr(budget, name) for budget in budgets.values())
        assert given_out <= getattr(machine, name) + 1e-6


def test_ray_gets_whole_numbers_and_nothing_that_is_zero() -> None:
    given_to_ray = ray_resources(scaled(Budget(23.54, 0, 2, 0)))
    assert set(given_to_ray) == {
        f"{pool}_{unit}" for pool in POOLS for unit in ("memory_mb", "cpu_millicores")
    }
    assert all(value == int(value) for value in given_to_ray.values())


@given(st.floats(0.001, 300), st.floats(0.001, 16), st.floats(1, 600), st.floats(0.1, 64))
def test_a_demand_that_fits_the_budget_here_fits_it_in_ray(
    memory_gb: float, cpu: float, machine_gb: float, cores: float
) -> None:
    """Ray draws whole units: three times a third of a core must not be too much there alone."""
    budgets = scaled(Budget(machine_gb, 0, cores, 0))
    at_start, resources = ray_resources(budgets), Resources(memory_gb=memory_gb, cpu=cpu)
    each = actor_resources("ai", resources)
    for name, key in (("memory_gb", "ai_memory_mb"), ("cpu", "ai_cpu_millicores")):
        budget = getattr(budgets["ai"], name)
        replicas = int(budget / asked(name, getattr(resources, name)))
        assert replicas * each[key] <= at_start.get(key, 0.0)


def test_what_is_asked_is_rounded_up_and_what_is_given_down() -> None:
    assert asked("cpu", 1 / 3) == 0.334
    assert given_here("cpu", 1 / 3) == 0.333
    assert asked("memory_gb", 2.5) == given_here("memory_gb", 2.5) == 2.5


@pytest.mark.parametrize(("name", "value"), [("memory_gb", 2.5), ("cpu", 0.32)])
def test_amounts_read_back_from_ray_are_those_given(name: str, value: float) -> None:
    given_to_ray = actor_resources("api", Resources(memory_gb=2.5, cpu=0.32))
    assert amount(given_to_ray, "api", name) == value
    assert amount(given_to_ray, "ai", name) is None
