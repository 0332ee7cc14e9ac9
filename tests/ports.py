"""Who listens where on this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterable

import psutil


def listens(port: int) -> bool:
    """Return whether something on loopback takes connections at a port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def assert_loopback_only(members: Iterable[psutil.Process]) -> set[int]:
    """Return the ports on which these processes listen, all to this machine alone."""
    pids, ports = {one.pid for one in members}, set()
    for one in psutil.net_connections("inet"):
        if one.pid in pids and one.status == psutil.CONN_LISTEN:
            assert one.laddr.ip in {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, one
            ports.add(one.laddr.port)
    return ports
