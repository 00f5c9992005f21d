# SPDX-License-Identifier: Apache-2.0
"""A judge for benchmarks: it answers every question after the same time, any number at once."""

import asyncio
import json
import sys

AGREES = b"agrees"
"""A chain with this word concludes its verdict, any other does not."""


def completion(text: str) -> bytes:
    """A chat completion, with what OpenAI's client needs of it."""
    message = {"role": "assistant", "content": text}
    return json.dumps(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": "judge",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
    ).encode()


MODELS = json.dumps({"object": "list", "data": [{"id": "judge", "object": "model"}]}).encode()
YES, NO = completion("1"), completion("0")


async def serve(seconds: float) -> None:
    """Prints the port, then serves until it is killed."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(
                    (head.partition(b"content-length:")[2].split(b"\r\n") or [b"0"])[0] or 0
                )
                asked = await reader.readexactly(length)
                if head.startswith(b"get"):
                    body = MODELS
                else:
                    await asyncio.sleep(seconds)
                    body = YES if AGREES in asked else NO
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
                    b"\r\n%b" % (len(body), body)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
