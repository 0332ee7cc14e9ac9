"""A TCP link that can be cut, as a network is: while it is, nothing comes through, and nobody is told."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

CHUNK_BYTES = 1 << 16


class Link:
    """Forwards a port of loopback to another until it is cut; what was sent meanwhile arrives when it is mended."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(listener.getsockname()[1])
        self._thread = threading.Thread(target=self._run, args=(listener,), daemon=True)
        self._thread.start()
        self._ready.wait()

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Let nothing through, of open and of new connections."""
        self._loop.call_soon_threadsafe(self._whole.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._whole.set)

    def close(self) -> None:
        """End it with all connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self, listener: socket.socket) -> None:
        asyncio.set_event_loop(self._loop)
        self._whole = asyncio.Event()
        self._whole.set()
        self._loop.run_until_complete(asyncio.start_server(self._connect, sock=listener))
        self._ready.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        listener.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._whole.wait()
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the service is away: as if its port refused
            writer.transport.abort()
            return
        await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
        with suppress(OSError):
            writer.close()
