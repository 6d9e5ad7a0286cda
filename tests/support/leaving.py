"""Clients that leave their requests, each in its own way, on sockets of their own."""

import asyncio
import json
import random
import socket
from collections import Counter

WAYS = (
    "connect only",
    "half a head",
    "half a body",
    "at once",
    "queued",
    "streaming",
    "unread",
    "half-closed",
    "reset",
    "stay",
)


def request(body: dict, path: str = "/generate") -> bytes:
    """The bytes of a POST."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


async def one_client(address: tuple[str, int], way: str, rng: random.Random) -> str:
    """Ask for a long answer and leave it in `way`; what came of it: left, refused (a status) or answered."""
    reader, writer = await asyncio.open_connection(*address, limit=2048)
    try:
        return await _leave(reader, writer, way, rng)
    except ConnectionError:
        return "left"
    finally:
        writer.transport.abort()


async def _leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str, rng: random.Random) -> str:
    streamed = way in ("streaming", "unread") or rng.random() < 0.5
    path = rng.choice(("/generate", "/v1/completions", "/v1/chat/completions"))
    asked = {"messages": [{"role": "user", "content": "hello"}]} if "chat" in path else {"prompt": "hello"}
    body = asked | {"max_tokens": 800, "ignore_eos": True, "stream": streamed, "seed": rng.randrange(1000)}
    if path != "/generate" and rng.random() < 0.5:
        body["n"] = 2
    if way == "stay":
        body |= {"max_tokens": 5, "stream": False}
    data = request(body, path)
    if way == "connect only":
        data = b""
    elif way == "half a head":
        data = data[: rng.randrange(1, 40)]
    elif way == "half a body":
        data = data[:-5]
    writer.write(data)
    await writer.drain()
    if way == "stay":
        head = await reader.readuntil(b"\r\n\r\n")
        status = head.split(b" ")[1].decode()
        return "answered" if status == "200" else status
    if way == "queued":
        await asyncio.sleep(rng.uniform(0, 0.1))
    elif way == "streaming":
        for _ in range(rng.randrange(1, 5)):
            await reader.read(300)
    elif way in ("unread", "half-closed", "reset"):
        await asyncio.sleep(rng.uniform(0, 0.3))
    if way == "half-closed":
        writer.write_eof()
        await reader.read(-1)  # the other half stays open until the server has had enough
    if way == "reset":
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return "left"


async def crowd(address: tuple[str, int], count: int, seed: int, *, within: float = 2.0) -> Counter[str]:
    """`count` clients that come at random within so many seconds, in all ways; how often what came of it."""
    rng = random.Random(seed)

    async def later(number: int) -> str:
        own = random.Random(rng.random())
        await asyncio.sleep(own.uniform(0, within))
        return await one_client(address, WAYS[number % len(WAYS)], own)

    async with asyncio.timeout(120):
        return Counter(await asyncio.gather(*(later(number) for number in range(count))))
