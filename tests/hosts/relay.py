"""A TCP relay that delays: `python relay.py PORT TO_PORT SECONDS`, on one host, in place of `tc netem`.

Each piece of bytes is passed on so many seconds after it came, in order, in both directions.
"""

from __future__ import annotations

import asyncio
import sys


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    """Takes pieces as they come and gives each its own time, so that a long stream is late and not slow."""
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

    async def send() -> None:
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(due - loop.time())
            if not piece:
                break
            writer.write(piece)
            await writer.drain()

    sending = asyncio.create_task(send())
    try:
        piece = b"-"
        while piece:
            piece = await reader.read(65_536)
            pieces.put_nowait((loop.time() + delay_s, piece))
        await sending
    except OSError:
        sending.cancel()
    finally:
        writer.close()


async def main(port: int, to_port: int, delay_s: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = writer.get_extra_info("sockname")[0]
        try:
            there_reader, there_writer = await asyncio.open_connection(host, to_port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pass_on(reader, there_writer, delay_s), pass_on(there_reader, writer, delay_s))

    server = await asyncio.start_server(connected, "0.0.0.0", port)
    print("relaying", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
