"""A network that can be cut: a TCP forwarder whose connections stall."""

from __future__ import annotations

import asyncio
import socket
import threading

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


def free_port() -> int:
    """A port of the loopback that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Network:
    """The links of one worker: ``link(port)`` gives the port at which others reach it.

    `cut` stops every byte in both directions, of open connections and of new ones, and closes
    nothing, as a switch does that loses its power; `mend` lets all flow on.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()
        self._flows = asyncio.Event()
        self._flows.set()
        self._servers: list[asyncio.Server] = []
        self._links: set[asyncio.Task[None]] = set()

    def link(self, port: int) -> int:
        """Forward a new port to this one."""

        async def serve() -> int:
            server = await asyncio.start_server(
                lambda reader, writer: self._accept(reader, writer, port), "127.0.0.1", 0
            )
            self._servers.append(server)
            found: int = server.sockets[0].getsockname()[1]
            return found

        return asyncio.run_coroutine_threadsafe(serve(), self._loop).result(5)

    def cut(self) -> None:
        """Let nothing pass."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def mend(self) -> None:
        """Let everything pass."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def close(self) -> None:
        """End all connections."""

        async def end() -> None:
            for server in self._servers:
                server.close()
            for task in self._links:
                task.cancel()
            await asyncio.gather(*self._links, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _accept(self, reader: Reader, writer: Writer, port: int) -> None:
        task = self._loop.create_task(self._forward(reader, writer, port))
        self._links.add(task)
        task.add_done_callback(self._links.discard)

    async def _forward(self, reader: Reader, writer: Writer, port: int) -> None:
        try:
            await self._flows.wait()
            there, back = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        except OSError:
            pass
        finally:
            writer.close()

    async def _pump(self, reader: Reader, writer: Writer) -> None:
        try:
            while data := await reader.read(2**16):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()
