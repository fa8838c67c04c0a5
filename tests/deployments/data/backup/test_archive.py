"""The programs that PostgreSQL runs: what their exit status says is so."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from configs.reader import PROJECT_ROOT
from deployments.data.backup import fetch, keys, server, wal
from tests.deployments.data.backup.world import World, world

SYSTEM = 7_712_021_102_588_519_884


@pytest.fixture
def still(tmp_path: Path) -> World:
    """A site whose PostgreSQL does not run, with a control file in `data`."""
    made = world(tmp_path)
    (tmp_path / "data" / "global").mkdir(parents=True)
    (tmp_path / "data" / "global" / "pg_control").write_bytes(SYSTEM.to_bytes(8, "little"))
    return made


def call(
    site: World, program: str, *words: str, most_bytes: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program as PostgreSQL does, in its data folder, with hardly any environment."""

    def limit() -> None:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    return subprocess.run(
        [sys.executable, "-m", f"deployments.data.backup.{program}", str(site.path), *words],
        cwd=site.folder / "data",
        env={"PYTHONPATH": str(PROJECT_ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        preexec_fn=limit,
    )


def segment(site: World, number: int, content: bytes) -> tuple[str, str]:
    """A WAL file; its path and name."""
    name = wal.segment_name(1, number)
    (site.folder / "data" / name).write_bytes(content)
    return name, name


def test_a_file_is_archived_once_and_again_but_not_differently(still: World) -> None:
    path, name = segment(still, 1, b"one" * 100_000)
    assert [call(still, "archive", path, name).returncode for _ in range(2)] == [0, 0]
    segment(still, 1, b"two")
    refused = call(still, "archive", path, name)
    assert refused.returncode == 1
    assert "already with another content" in refused.stderr
    assert call(still, "fetch", name, "got").returncode == 0
    assert (still.folder / "data" / "got").read_bytes() == b"one" * 100_000


def test_a_full_disk_is_told_and_leaves_nothing_that_looks_archived(still: World) -> None:
    path, name = segment(still, 1, bytes(range(256)) * 4096)
    full = call(still, "archive", path, name, most_bytes=1000)
    assert full.returncode == 1
    assert "cannot be used: File too large" in full.stderr
    assert still.objects() == []
    assert call(still, "archive", path, name).returncode == 0


def test_an_unmounted_folder_is_told_and_not_made(still: World) -> None:
    path, name = segment(still, 1, b"one")
    moved = Path(still.settings.to).rename(still.folder / "moved")
    done = call(still, "archive", path, name)
    assert (done.returncode, "is its disk mounted?" in done.stderr) == (1, True)
    assert not Path(still.settings.to).exists()
    moved.rename(still.settings.to)
    assert call(still, "archive", path, name).returncode == 0


def test_a_name_that_is_no_wal_files_is_refused(still: World) -> None:
    path, _ = segment(still, 1, b"one")
    assert call(still, "archive", path, "../../x").returncode == 1
    assert call(still, "archive").returncode == 1


def test_the_end_of_the_archive_is_told_from_a_hole_and_from_damage(still: World) -> None:
    for number in (1, 2, 4):
        assert call(still, "archive", *segment(still, number, b"x" * number)).returncode == 0
    assert call(still, "fetch", wal.segment_name(1, 5), "got").returncode == fetch.ABSENT
    assert call(still, "fetch", "00000002.history", "got").returncode == fetch.ABSENT
    hole = call(still, "fetch", wal.segment_name(1, 3), "got")
    assert hole.returncode == fetch.FAILED
    assert "the archive has a hole" in hole.stderr
    damaged = still.objects()[1]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    broken = call(still, "fetch", wal.segment_name(1, 2), "got")
    assert (broken.returncode, "was changed" in broken.stderr) == (fetch.FAILED, True)
    (still.folder / "home" / "secrets" / keys.FILE).unlink()
    assert call(still, "fetch", wal.segment_name(1, 1), "got").returncode == fetch.FAILED


def test_a_spool_holds_the_next_files(still: World) -> None:
    for number in range(1, 5):
        call(still, "archive", *segment(still, number, b"x" * number))
    spool = still.folder / "spool"
    spool.mkdir()
    still.use(spool=str(spool))
    for number in range(1, 5):
        assert call(still, "fetch", wal.segment_name(1, number), "got").returncode == 0
        assert (still.folder / "data" / "got").read_bytes() == b"x" * number
        left = sorted(path.name for path in spool.iterdir())
        assert left == [wal.segment_name(1, later) for later in range(number + 1, 5)]


def test_the_servers_settings_run_these_programs(still: World) -> None:
    still.use(wal_every_s=7)
    found = server.backup_settings(still.path)
    assert found["archive_timeout"] == "7s"
    assert found["archive_command"].endswith(f"backup.archive {still.path} %p %f")
