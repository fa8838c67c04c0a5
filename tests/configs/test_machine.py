"""What a machine has, read from the words of its system."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from configs.machine import cpu_cores, machine, memory_bytes, neural_cores, parse_metal_cores


def test_this_machine_has_memory_and_cores() -> None:
    found = machine()
    assert found.memory_gb > 0
    assert found.cpu > 0


def test_a_containers_memory_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert memory_bytes(tmp_path) == 2**30


def test_a_container_without_a_limit_has_the_machines_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_bytes(tmp_path) == psutil.virtual_memory().total


def test_a_containers_cpu_quota_counts(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cpu_cores(tmp_path) == 0.5


def test_metal_cores_are_read_from_the_registry() -> None:
    registry = '+-o AGXAcceleratorG15X  <class AGXAcceleratorG15X>\n  "gpu-core-count" = 80\n'
    assert parse_metal_cores(registry) == 80
    assert parse_metal_cores("") == 0


@pytest.mark.parametrize(
    ("chip", "cores"), [("Apple M3 Ultra", 32), ("Apple M4 Pro", 16), ("Intel(R) Xeon(R)", 0)]
)
def test_neural_cores_follow_the_chip(chip: str, cores: int) -> None:
    assert neural_cores(chip) == cores
