"""The system's account that runs PostgreSQL: our own, or a separate one where we are root.

PostgreSQL refuses root. Its account gets the data folder and the socket's folder, and may pass
through the folders above them: `--x`, which lets nobody list or read them.
"""

from __future__ import annotations

import fcntl
import os
import platform
import pwd
import stat
import subprocess
from pathlib import Path
from typing import TypedDict

from deployments.cell.errors import CellError

NAME = "medrec-postgres"
_PASSWD = Path("/etc/passwd")
_TIMEOUT_S = 30


class Identity(TypedDict, total=False):
    """Keyword arguments of `subprocess` that choose the account; empty for our own."""

    user: int
    group: int
    extra_groups: list[int]


def identity() -> Identity:
    """As whom PostgreSQL's programs run. Raises `CellError` where root can have no account for it."""
    if (entry := _entry()) is None:
        return {}
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def hand_over(folder: Path) -> None:
    """Make `folder` the account's own, with nobody else in it, and reachable."""
    folder.chmod(0o700)
    if (entry := _entry()) is not None:
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        let_through(folder)


def give(file: Path) -> None:
    """Make a file of ours the account's own; nothing where the account is our own."""
    if (entry := _entry()) is not None:
        os.chown(file, entry.pw_uid, entry.pw_gid)


def let_through(path: Path) -> None:
    """Let the account pass through every folder above `path`; only where it is not our own."""
    if os.geteuid() != 0:
        return
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)


def _entry() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
        pass
    if platform.system() != "Linux":
        raise CellError("PostgreSQL does not run as root: start medrec as an ordinary user")
    # Of several useradd at once, as of cells that start for the first time together, each can succeed,
    # and the account then has another number than some of them gave their folders to.
    with _PASSWD.open("rb") as passwd:
        fcntl.flock(passwd, fcntl.LOCK_EX)
        try:
            return pwd.getpwnam(NAME)
        except KeyError:
            return _made()


def _made() -> pwd.struct_passwd:
    line = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", NAME]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        return pwd.getpwnam(NAME)
    except OSError as error:
        raise CellError(f"no account for PostgreSQL, and useradd cannot run: {error}") from error
    except KeyError as error:
        raise CellError(f"useradd made no account for PostgreSQL: {done.stderr.strip()}") from error
