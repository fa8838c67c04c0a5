"""The database of a cell: its own PostgreSQL, or another's by DSN; at the code's revision."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from configs.args import RecordsArgs
from configs.site import ApiApplication, DataApplication, SiteConfig
from deployments.cell.state import Home
from deployments.data import postgres
from deployments.data.migrate import migrate
from deployments.data.places import places

Tell = Callable[[str], None]


def records_args(site: SiteConfig) -> RecordsArgs | None:
    """How the config's applications keep records; the reader has seen that they agree."""
    for app in site.applications:
        if isinstance(app, ApiApplication | DataApplication):
            return app.args.records
    return None


def is_local(args: RecordsArgs) -> bool:
    """Whether the records lie in the cell's own PostgreSQL."""
    return args.dsn is None


def start(home: Home, tell: Tell) -> subprocess.Popen[bytes]:
    """Start the cell's own PostgreSQL; made first, if there is none. Raises `CellError`."""
    server = postgres.local(home)
    if not server.exists:
        tell("making the database")
    server.initialise()
    return server.start()


def bring_up(
    process: subprocess.Popen[bytes] | None,
    args: RecordsArgs,
    home: Home,
    tell: Tell,
    still_wanted: Callable[[], None] = lambda: None,
) -> None:
    """Wait for the cell's own server, if there is one, and migrate. Raises `CellError`."""
    if process is not None:
        postgres.local(home).wait_ready(process, still_wanted)
    tell("migrating the records")
    migrate(places(args, home).owner_dsn)


def stop(home: Home) -> list[int]:
    """End the home's own PostgreSQL, whoever started it. Returns the pids left over."""
    server = postgres.local(home)
    left = server.stop()
    if not left:
        server.discard()
    return left
