"""Proves that the disk that a folder lies on is among those that are watched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deployments.cell.disks import free_ratios


def test_the_file_system_of_a_folder_is_there_with_what_is_free_of_it(tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    found = free_ratios([tmp_path / "not" / "there" / "yet"])
    point = max((p for p in found if str(tmp_path).startswith(p)), key=len)
    assert found[point] == pytest.approx(usage.free / usage.total, abs=0.05)
    assert all(0 <= ratio <= 1 for ratio in found.values())
