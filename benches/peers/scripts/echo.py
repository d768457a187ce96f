"""Echo on asyncio protocols, on uvloop's loop if the argument says so.

The listener was made by the runner, with its options, and is descriptor 3.
"""

import asyncio
import socket
import sys


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)

    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()


async def main():
    listener = socket.socket(fileno=3)
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, sock=listener)
    await server.serve_forever()


if sys.argv[1:] == ["uvloop"]:
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
