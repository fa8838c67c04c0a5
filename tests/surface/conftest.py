"""One world a module: a database of its own, the application on it, and three patients."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

from deployments.data.postgres import APPLICATION, OWNER, LocalServer
from tests.surface.world import Held, World, hold, world_on


@pytest.fixture(scope="module")
def world(postgres: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The surface, served; what a test creates stays until the module ends."""
    name = f"surface_{uuid.uuid4().hex}"
    folder: Path = tmp_path_factory.mktemp("home")
    with psycopg.connect(postgres.dsn(OWNER, "postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE medrec STRATEGY file_copy')
        connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
        connection.execute(f'GRANT CONNECT ON DATABASE "{name}" TO {APPLICATION}')
        try:
            with world_on(
                postgres.dsn(APPLICATION, name), postgres.dsn(OWNER, name), folder
            ) as made:
                yield made
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@dataclass(frozen=True, slots=True)
class Patients:
    """`cared` is in the demo physician's care, `stranger` in nobody's, `foreign` elsewhere."""

    cared: Held
    stranger: Held
    foreign: Held


@pytest.fixture(scope="module")
def patients(world: World) -> Patients:
    """Three patients with one resource of every type each."""
    return Patients(
        cared=hold(world.demo, "MARCACUIDADO", world.practitioner),
        stranger=hold(world.demo, "MARCAESTRANHO"),
        foreign=hold(world.elsewhere, "MARCAALHEIO"),
    )


@pytest.fixture(scope="module")
def physician(world: World) -> httpx.Client:
    """The demo physician, signed in."""
    return world.user("physician")
