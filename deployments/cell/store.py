"""The database of a cell: its own PostgreSQL, or another's by DSN; at the code's revision."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from configs.args import RecordsArgs
from configs.cell import ApiApplication, CellConfig, DataApplication
from deployments.cell.state import Home
from deployments.data import postgres
from deployments.data.backup import settings as backup
from deployments.data.backup.server import backup_settings, let_archiver_in
from deployments.data.places import places

Tell = Callable[[str], None]


def records_args(site: CellConfig) -> RecordsArgs | None:
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
    archiving = home.path / backup.FILE
    if not archiving.exists():
        return server.start()
    let_archiver_in(archiving)
    return server.start(backup_settings(archiving), backup.credentials(backup.read(archiving)))


def bring_up(
    process: subprocess.Popen[bytes] | None,
    args: RecordsArgs,
    home: Home,
    base_url: str,
    tell: Tell,
    still_wanted: Callable[[], None] = lambda: None,
) -> None:
    """Wait for the cell's own server, if there is one, migrate, and see to demo users or refuse them.

    Raises `CellError`.
    """
    # Half a second of imports that only a start needs; every command comes past this module.
    from deployments.data.accounts.demo import at_start
    from deployments.data.migrate import migrate

    if process is not None:
        postgres.local(home).wait_ready(process, still_wanted)
    tell("migrating the records")
    where = places(args, home)
    migrate(where.owner_dsn)
    at_start(where, args, home, base_url)


def stop(home: Home) -> list[int]:
    """End the home's own PostgreSQL, whoever started it. Returns the pids left over."""
    server = postgres.local(home)
    left = server.stop()
    if not left:
        server.discard()
    return left
