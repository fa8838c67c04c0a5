"""Where the records lie: the home's own server and folders, or those that the config names."""

from __future__ import annotations

import stat
from pathlib import Path

import psycopg

from configs.args import RecordsArgs
from deployments.cell.state import Home
from deployments.data.places import places
from deployments.data.postgres import local


def test_unless_told_otherwise_everything_is_the_homes_own(tmp_path: Path) -> None:
    home = Home(tmp_path)
    found = places(RecordsArgs(), home)
    parts = psycopg.conninfo.conninfo_to_dict(found.dsn)
    assert (parts["user"], parts["dbname"]) == ("medrec_app", "medrec")
    assert parts["host"] == str(local(home).sockets)
    assert psycopg.conninfo.conninfo_to_dict(found.owner_dsn)["user"] == "medrec_owner"
    assert (found.secrets, found.blobs, found.journal) == (
        *(tmp_path / "secrets", tmp_path / "blobs", tmp_path / "journal"),
    )


def test_the_folders_are_their_owners_alone(tmp_path: Path) -> None:
    found = places(RecordsArgs(), Home(tmp_path))
    for folder in (found.secrets, found.blobs, found.journal):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_config_can_name_a_server_and_folders_of_its_own(tmp_path: Path) -> None:
    args = RecordsArgs(
        dsn="host=db user=medrec_app",
        owner_dsn="host=db user=o",
        secrets=str(tmp_path / "keys"),
        blobs=str(tmp_path / "far" / "blobs"),
    )
    found = places(args, Home(tmp_path / "home"))
    assert (found.dsn, found.owner_dsn) == ("host=db user=medrec_app", "host=db user=o")
    assert found.secrets == tmp_path / "keys"
    assert found.blobs.is_dir()


def test_two_homes_have_two_servers(tmp_path: Path) -> None:
    first, second = local(Home(tmp_path / "a")), local(Home(tmp_path / "b"))
    assert first.sockets != second.sockets
    assert first.data != second.data
