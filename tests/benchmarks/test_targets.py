from __future__ import annotations

import pytest

from benchmarks.targets import TargetRefused, loopback


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.9.8.7:81/v1/", "http://127.9.8.7:81"),
        ("http://localhost:8000/v1", "http://127.0.0.1:8000"),
        ("http://[::1]:9/api/v1", "http://[::1]:9/api"),
        ("http://127.0.0.1", "http://127.0.0.1:80"),
    ],
)
def test_this_machine_is_accepted(url: str, seen: str) -> None:
    assert loopback(url).url == seen


@pytest.mark.parametrize(
    "url",
    [
        "http://192.168.0.10:8000",
        "http://0.0.0.0:8000",
        "http://hospital.example:8000",
        "http://127.0.0.1.example:8000",
        "http://localhost.example:8000",
        "http://[2001:db8::1]:8000",
        "http://127.0.0.1@10.0.0.1:8000",
    ],
)
def test_any_other_machine_is_refused_by_name(url: str) -> None:
    with pytest.raises(TargetRefused, match="is not a loopback address"):
        loopback(url)


def test_anything_but_plain_http_is_refused() -> None:
    with pytest.raises(TargetRefused, match="only http://"):
        loopback("https://127.0.0.1:8443")
