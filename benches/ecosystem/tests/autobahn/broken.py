"""An echo over WebSocket that checks nothing: what the suite is to find fault with.

    broken.py    says `listening on ADDRESS`, and serves until killed
"""

import asyncio
import base64
import hashlib
import re

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CLOSE, PING, PONG = 8, 9, 10


def frame(opcode, payload):
    if len(payload) < 126:
        length = bytes([len(payload)])
    elif len(payload) < 65_536:
        length = b"\x7e" + len(payload).to_bytes(2, "big")
    else:
        length = b"\x7f" + len(payload).to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + payload


async def read_frame(reader):
    first, length = await reader.readexactly(2)
    masked, length = length & 0x80, length & 0x7F
    if length > 125:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
    mask = await reader.readexactly(4) if masked else bytes(4)
    payload = await reader.readexactly(length)
    # As one number: a loop over the bytes would be too slow for the large messages.
    mask = (mask * (length // 4 + 1))[:length]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")
    return first & 0x80, first & 0x0F, number.to_bytes(length, "big")


async def echo(reader, writer):
    request = await reader.readuntil(b"\r\n\r\n")
    key = re.search(rb"(?i)\r\nsec-websocket-key: *(\S+)", request)[1]
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-accept: " + accept + b"\r\n\r\n"
    )
    kind, message = 1, bytearray()
    while True:
        final, opcode, payload = await read_frame(reader)
        if opcode == CLOSE:
            # Without the reason: the suite's own client cannot read one that is no text.
            writer.write(frame(CLOSE, payload[:2]))
            return
        if opcode == PING:
            writer.write(frame(PONG, payload))
        elif opcode != PONG:
            # An opcode that there is not is text.
            kind = kind if opcode == 0 else 2 if opcode == 2 else 1
            message += payload
            if final:
                writer.write(frame(kind, message))
                message = bytearray()


async def serve(reader, writer):
    try:
        await echo(reader, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    print("listening on 127.0.0.1:%d" % server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
