"""The parts of a cell write what they know side by side, and no reader sees half of it."""

from __future__ import annotations

import threading
from pathlib import Path

from deployments.cell import condition
from deployments.cell.state import Home


def test_sections_of_many_writers_stand_side_by_side(tmp_path: Path) -> None:
    home = Home(tmp_path)
    names = [f"part{number}" for number in range(8)]

    def write(name: str) -> None:
        for count in range(20):
            condition.put(home, name, {"count": count})

    threads = [threading.Thread(target=write, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert all("at" in section for section in condition.read(home).values())
    for thread in threads:
        thread.join()
    found = condition.read(home)
    assert {name: found[name]["count"] for name in names} == dict.fromkeys(names, 19)


def test_a_damaged_file_says_nothing_and_is_written_anew(tmp_path: Path) -> None:
    home = Home(tmp_path)
    condition.put(home, "blobs", {"missing": 0})
    (home.run / condition.FILE).write_text("{", encoding="utf-8")
    assert condition.read(home) == {}
    condition.put(home, "blobs", {"missing": 1})
    assert condition.read(home)["blobs"]["missing"] == 1
