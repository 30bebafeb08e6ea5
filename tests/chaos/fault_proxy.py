"""An HTTP/1.1 reverse proxy that breaks a chosen share of the requests that pass through it.

It knows nothing of S3 but the shape of its "slow down" answer, and nothing of its clients.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass

HOST = "127.0.0.1"
FAULTS = ("unavailable", "reset", "truncate", "lost", "slow")
SLOW_SECONDS = 0.3
PIECE = 1 << 16
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message>"
    b"<RequestId>fault-proxy</RequestId></Error>"
)


@dataclass(frozen=True)
class Head:
    """The first line and the headers of a request or an answer, as received and as read."""

    raw: bytes
    first: list[str]
    headers: dict[str, str]

    @property
    def chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def length(self) -> int | None:
        value = self.headers.get("content-length")
        return None if value is None else int(value)

    @property
    def expects_continue(self) -> bool:
        return self.headers.get("expect", "").lower() == "100-continue"

    @property
    def closes(self) -> bool:
        return "close" in self.headers.get("connection", "").lower()


class FaultProxy:
    """`rates` maps names in FAULTS to probabilities; it is read anew for each request.

    `counts` tells how often each fault happened; one drawn for a request that it does not fit is
    no fault. `errors` holds what went wrong inside the proxy itself: it must stay empty.
    """

    def __init__(self, target_port: int, seed: int, rates: dict[str, float]) -> None:
        unknown = set(rates) - set(FAULTS)
        if unknown:
            raise ValueError(f"unknown faults: {sorted(unknown)}")
        self.target_port = target_port
        self.rates = rates
        self.counts = dict.fromkeys(("requests", *FAULTS), 0)
        self.errors: list[Exception] = []
        self._random = random.Random(seed)
        self._listener: socket.socket | None = None
        self._port: int | None = None
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> "FaultProxy":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        if self._port is None:
            raise RuntimeError("the proxy was never started")
        return f"http://{HOST}:{self._port}"

    def start(self) -> None:
        self._listener = socket.create_server((HOST, 0), backlog=256)
        self._port = self._listener.getsockname()[1]
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Break all connections and end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        # A connection that breaks at an odd moment is this proxy's trade, not news to print.
        loop.set_exception_handler(lambda *_: None)
        server = loop.run_until_complete(
            asyncio.start_server(self._accept, sock=self._listener, limit=1 << 20)
        )
        self._ready.set()
        loop.run_forever()
        server.close()
        loop.run_until_complete(self._break_all())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    async def _break_all(self) -> None:
        await asyncio.sleep(0)  # a connection just accepted becomes one of the set
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0)  # aborted transports close their sockets

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Asyncio sees to this only for sockets made with a protocol number: 40 ms an answer.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._loop.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client connection, request after request."""
        try:
            while await self._request(reader, writer):
                pass
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError):
            writer.close()  # the other side has gone, or the server is down
        except Exception as error:
            self.errors.append(error)
            writer.transport.abort()

    def _draw(self) -> str | None:
        point = self._random.random()
        for fault in FAULTS:
            point -= self.rates.get(fault, 0.0)
            if point < 0:
                return fault
        return None

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; tell whether the connection can carry another."""
        request = await read_head(reader)
        method = request.first[0]
        self.counts["requests"] += 1
        fault = self._draw()
        if fault == "lost" and method not in ("PUT", "POST", "DELETE"):
            fault = None
        if fault == "reset":
            self.counts["reset"] += 1
            reset(writer)
            return False
        if fault == "unavailable":
            await self._refuse(request, reader, writer)
            return not request.closes
        if fault == "slow":
            self.counts["slow"] += 1
            await asyncio.sleep(SLOW_SECONDS)
        # A connection per request: none goes stale when the server is killed and started again.
        server_reader, server_writer = await asyncio.open_connection(
            HOST, self.target_port, limit=1 << 20
        )
        try:
            server_writer.write(request.raw)
            pump = asyncio.create_task(send_body(request, reader, server_writer))
            try:
                answer, continued = await self._final_head(server_reader, writer)
                if fault == "lost":
                    async for _ in answer_body(request, answer, server_reader):
                        pass
                    self.counts["lost"] += 1
                    reset(writer)
                    return False
                whole = await self._answer(request, answer, server_reader, writer, fault)
                # An answer may come before the end of the body. A client still waiting for its
                # "100 Continue" will not send the body; any other one is given time to.
                if not pump.done() and (continued or not request.expects_continue):
                    await asyncio.wait({pump}, timeout=1)
                sent = pump.done() and pump.result()
                return whole and sent and not request.closes and not answer.closes
            finally:
                pump.cancel()
        finally:
            server_writer.transport.abort()

    async def _refuse(
        self, request: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if request.expects_continue:
            writer.write(CONTINUE)
        async for _ in request_body(request, reader):
            pass
        self.counts["unavailable"] += 1
        writer.write(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\n"
            b"Content-Length: %d\r\n\r\n" % len(SLOW_DOWN)
        )
        if request.first[0] != "HEAD":
            writer.write(SLOW_DOWN)
        await writer.drain()

    async def _final_head(
        self, server_reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[Head, bool]:
        """The head of the answer, and whether a "100 Continue" was passed on before it."""
        continued = False
        while True:
            answer = await read_head(server_reader)
            if not answer.first[1].startswith("1"):
                return answer, continued
            continued = True
            writer.write(answer.raw)
            await writer.drain()

    async def _answer(
        self,
        request: Head,
        answer: Head,
        server_reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        fault: str | None,
    ) -> bool:
        """Pass the answer on; tell whether the client can see where it ends."""
        parts = answer_body(request, answer, server_reader)
        if fault == "truncate" and request.first[0] == "GET":
            body = b"".join([part async for part in parts])
            # A chunked body is cut as framed: one byte in one chunk takes eleven.
            if len(body) >= (12 if answer.chunked else 2):
                self.counts["truncate"] += 1
                writer.write(answer.raw + body[: len(body) // 2])
                await writer.drain()
                return False
            writer.write(answer.raw + body)
        else:
            writer.write(answer.raw)
            async for part in parts:
                writer.write(part)
                await writer.drain()
        await writer.drain()
        return has_no_body(request, answer) or answer.chunked or answer.length is not None


async def read_head(reader: asyncio.StreamReader) -> Head:
    raw = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return Head(raw, first.split(" ", 2), {k.strip().lower(): v.strip() for k, _, v in pairs})


async def send_body(
    request: Head, reader: asyncio.StreamReader, server_writer: asyncio.StreamWriter
) -> bool:
    """Pass the body of a request on; tell whether all of it was."""
    try:
        async for part in request_body(request, reader):
            server_writer.write(part)
            await server_writer.drain()
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        server_writer.close()  # else the answer to half a request would be waited for
        return False
    return True


def request_body(request: Head, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    return chunks(reader) if request.chunked else exactly(reader, request.length or 0)


def answer_body(request: Head, answer: Head, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    if has_no_body(request, answer):
        return exactly(reader, 0)
    if answer.chunked:
        return chunks(reader)
    if answer.length is not None:
        return exactly(reader, answer.length)
    return rest(reader)


def has_no_body(request: Head, answer: Head) -> bool:
    return request.first[0] == "HEAD" or answer.first[1] in ("204", "304")


async def exactly(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    while size:
        part = await reader.read(min(size, PIECE))
        if not part:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(part)
        yield part


async def rest(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while part := await reader.read(PIECE):
        yield part


async def chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """A chunked body as framed, with its trailers."""
    while True:
        line = await reader.readuntil(b"\r\n")
        yield line
        size = int(line.partition(b";")[0], 16)
        if not size:
            break
        async for part in exactly(reader, size + 2):
            yield part
    while line != b"\r\n":
        line = await reader.readuntil(b"\r\n")
        yield line


def reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other side sees a reset and not an end."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
