"""Where load may go: to this machine and nowhere else."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


class TargetRefused(ValueError):
    """The operator's fault: a load generator is never pointed at another machine."""


@dataclass(frozen=True, slots=True)
class Target:
    """One server of this machine; `path` is what stands before `/v1`, without a final slash.

    `api_key` is empty for a server that asks for none.
    """

    host: str
    port: int
    path: str = ""
    api_key: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What every request bears."""
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}{self.path}"


def loopback(url: str, api_key: str = "") -> Target:
    """The target that `url` names. Raises `TargetRefused` unless it is plain HTTP on loopback.

    Names other than `localhost` are refused unresolved: a name can point anywhere a moment later.
    """
    parts = urlsplit(url)
    if parts.scheme != "http":
        raise TargetRefused(f"{url}: only http:// targets are measured")
    host = parts.hostname or ""
    address = "127.0.0.1" if host == "localhost" else host
    try:
        is_loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise TargetRefused(
            f"{host or url} is not a loopback address: load is only sent to this machine"
        )
    path = parts.path.rstrip("/").removesuffix("/v1")
    if any(ord(letter) < 33 or ord(letter) > 126 for letter in api_key):
        raise TargetRefused("an API key is visible ASCII without spaces")
    return Target(address, parts.port or 80, path, api_key)
