"""Site keys that come from another cell of the same site, put together with those that are here.

Nothing that is here is ever replaced: keys are added, and the newer of both current keys is current.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from deployments.data.seal import keys
from deployments.data.seal.errors import SiteKeysError
from deployments.data.seal.keys import SiteKeys


def merged(ours: SiteKeys, theirs: SiteKeys) -> SiteKeys:
    """Both together. Raises `SiteKeysError` unless both are of one site: the index key tells."""
    if ours.index != theirs.index:
        raise SiteKeysError(
            "these are the site keys of another site: records here would not open by them"
        )
    newer = max(ours, theirs, key=lambda entry: _made(entry.keys[entry.current].created))
    return replace(ours, current=newer.current, keys={**theirs.keys, **ours.keys})


def take(secrets: Path, theirs: SiteKeys) -> SiteKeys:
    """Merge into the secrets folder, durably; what is there afterwards. Call it within `keys.lock`.

    Raises `SiteKeysError`; then nothing was changed.
    """
    if not keys.path_of(secrets).exists():
        found = replace(theirs, rotating_from=None)
        keys.write(secrets, found)
        return found
    ours = keys.read(secrets)
    found = merged(ours, theirs)
    if found != ours:
        keys.write(secrets, found)
    return found


def _made(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise SiteKeysError("a site key does not say when it was made") from None
