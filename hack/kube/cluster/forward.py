"""A way from the host's loopback to the API server: `forward.py PORT PID ADDRESS ADDRESS_PORT`.

It listens on 127.0.0.1:PORT of the host, then enters the network of process PID for good and connects there. Bytes are
passed as they are: TLS is between kubectl and the API server. Run by its path; standard library alone.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import sys
from pathlib import Path

CLONE_NEWNET = 0x40000000
CHUNK = 64 * 1024


def main() -> None:
    port, pid, address, address_port = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    with Path(f"/proc/{pid}/ns/net").open() as network:
        if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    asyncio.run(_serve(listener, address, address_port))


async def _serve(listener: socket.socket, address: str, port: int) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection(address, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass(reader, there[1]), _pass(there[0], writer))

    server = await asyncio.start_server(accept, sock=listener)
    await server.serve_forever()


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while chunk := await source.read(CHUNK):
            sink.write(chunk)
            await sink.drain()
    except OSError:
        pass
    finally:
        sink.close()


if __name__ == "__main__":
    main()
