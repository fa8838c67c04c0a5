"""The ports of a cell: no two alike, no two cells in each other's way, a taken one named."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from deployments.cell.ports import MAX_OFFSET, OFFSET_STEP, Ports, chosen, is_free, taken


def every(ports: Ports) -> set[int]:
    singles = {port for _, port in ports.singles()}
    return singles | set(ports.ingress) | set(range(ports.worker_first, ports.worker_last + 1))


def test_no_port_is_used_twice_by_any_two_cells_of_a_machine() -> None:
    cells = [Ports().shifted(offset) for offset in range(0, MAX_OFFSET + 1, OFFSET_STEP)]
    sets = [every(ports) for ports in cells]
    assert len(set().union(*sets)) == sum(len(ports) for ports in sets)


def test_no_port_of_any_cell_lies_in_linuxs_ephemeral_range() -> None:
    assert max(every(Ports().shifted(MAX_OFFSET))) < 32_768


@pytest.mark.parametrize("offset", [1, 999, -1000, MAX_OFFSET + OFFSET_STEP])
def test_other_offsets_are_refused(offset: int) -> None:
    with pytest.raises(ValueError, match="multiple of 1000"):
        Ports().shifted(offset)


def test_port_is_the_public_port_and_not_shifted() -> None:
    ports = chosen(1000, public=8080, serve=8001)
    assert ports.public == 8080
    assert ports.serve == 9001


def test_a_taken_port_is_named_with_its_setting() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not is_free(port)
        offset = Ports().shifted(MAX_OFFSET)
        words = [str(entry) for entry in taken(replace(offset, public=port)) if entry.port == port]
    assert len(words) == 1
    assert words[0].startswith(f"port {port} (public) is taken")
    assert words[0].endswith("choose another with PORT")


def test_a_port_whose_last_connection_lingers_is_free() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listener.accept()
            accepted.close()  # the side that closes first keeps the port in TIME_WAIT
    assert is_free(port)
