"""The other end of tests/grpc_python.rs: gRPC by Google's own library, in either role.

    grpc_peer.py client HOST:PORT    calls our server, and checks each answer
    grpc_peer.py server              prints its address, and serves until its input ends

The three messages are coded by hand, so that neither protoc nor generated code is needed. Ends with
a traceback when something is not as it should be.
"""

import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "quoit.store.v1.Store"
LARGE = 6 << 20
OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
]


# --- protobuf: of Name, Entry and Loaded together, as their field numbers and kinds agree ---------


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(name=None, value=0, blob=b"", count=0):
    out = b""
    if name:
        text = name.encode()
        out += b"\x0a" + varint(len(text)) + text
    if count:
        out += b"\x08" + varint(count)
    if value:
        out += b"\x10" + varint(value)
    if blob:
        out += b"\x1a" + varint(len(blob)) + blob
    return out


def decode(data):
    fields, at = {}, 0

    def number():
        nonlocal at
        result = shift = 0
        while True:
            byte = data[at]
            at += 1
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return result

    while at < len(data):
        key = number()
        if key & 7 == 0:
            fields[key >> 3] = number()
        else:
            assert key & 7 == 2, key
            length = number()
            fields[key >> 3] = data[at : at + length]
            at += length
    return fields


def entry_of(data):
    fields = decode(data)
    value = fields.get(2, 0)
    value -= (1 << 64) * (value >= 1 << 63)
    return fields.get(1, b"").decode(), value, fields.get(3, b"")


# --- client ---------------------------------------------------------------------------------------


def failure(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("it should have failed")


def eventually(condition):
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit, "it never comes about"
        time.sleep(0.01)


def client(address):
    channel = grpc.insecure_channel(address, OPTIONS)
    path = f"/{SERVICE}/"
    get = channel.unary_unary(path + "Get")
    wait = channel.unary_unary(path + "Wait")
    watch = channel.unary_stream(path + "Watch")
    load = channel.stream_unary(path + "Load")
    add = channel.stream_stream(path + "Add")
    health = channel.unary_unary("/grpc.health.v1.Health/Check")

    blob = bytes(at % 251 for at in range(251)) * (LARGE // 251)
    entries = [encode("a", 1), encode("b", -2), encode("large", 3, blob)]
    assert decode(load(iter(entries), timeout=20)) == {1: 3}
    assert entry_of(get(encode("b"), timeout=20)) == ("b", -2, b"")
    assert entry_of(get(encode("large"), timeout=20)) == ("large", 3, blob)

    metadata = [("x-request-id", "seventeen")]
    answer, call = get.with_call(encode("a"), timeout=20, metadata=metadata)
    assert entry_of(answer) == ("a", 1, b"")
    assert ("x-request-id", "seventeen") in call.initial_metadata()

    missing = failure(lambda: get(encode("nobody"), timeout=20))
    assert missing.code() == grpc.StatusCode.NOT_FOUND, missing
    assert missing.details() == 'nothing is under "nobody"', missing
    unknown = channel.unary_unary(path + "Unknown")
    assert failure(lambda: unknown(b"", timeout=20)).code() == grpc.StatusCode.UNIMPLEMENTED
    assert decode(health(encode(SERVICE), timeout=20)) == {1: 1}, "serving"

    # Each request is sent when the answer to the one before has come.
    turn = threading.Semaphore(1)

    def requests():
        for value in (10, 20, 30):
            turn.acquire()
            yield encode("sum", value)

    sums = []
    for answer in add(requests(), timeout=20):
        sums.append(entry_of(answer)[1])
        turn.release()
    assert sums == [10, 30, 60], sums

    watching = watch(encode("a"), timeout=20)
    assert entry_of(next(watching)) == ("a", 1, b"")
    watching.cancel()
    late = failure(lambda: wait(encode("never"), timeout=0.1))
    assert late.code() == grpc.StatusCode.DEADLINE_EXCEEDED, late

    # Thousands of small calls on one connection, many at a time.
    with futures.ThreadPoolExecutor(8) as pool:
        calls = pool.map(lambda _: entry_of(get(encode("b"), timeout=20)), range(2000))
        assert all(answer == ("b", -2, b"") for answer in calls)
    channel.close()
    print("every call is answered as it should be")


# --- server ---------------------------------------------------------------------------------------


class Store(grpc.GenericRpcHandler):
    def __init__(self):
        self.entries = {}
        self.cancelled = threading.Event()

    def service(self, details):
        handlers = {
            "Get": grpc.unary_unary_rpc_method_handler(self.get),
            "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
            "Load": grpc.stream_unary_rpc_method_handler(self.load),
            "Add": grpc.stream_stream_rpc_method_handler(self.add),
        }
        service, method = details.method.strip("/").split("/")
        return handlers.get(method) if service == SERVICE else None

    def get(self, request, context):
        name = entry_of(request)[0]
        if name == "was it cancelled?":
            return encode(name, int(self.cancelled.wait(10)))
        if name not in self.entries:
            context.abort(grpc.StatusCode.NOT_FOUND, f"nothing is under {name}")
        for key, value in context.invocation_metadata():
            if key == "x-request-id":
                context.send_initial_metadata([(key, value)])
        return self.entries[name]

    def wait(self, request, context):
        """Answers nobody."""
        over = threading.Event()
        context.add_callback(over.set)
        over.wait(30)
        self.cancelled.set()
        return b""

    def watch(self, request, context):
        prefix = entry_of(request)[0]
        for name in sorted(self.entries):
            if name.startswith(prefix):
                yield self.entries[name]

    def load(self, requests, context):
        loaded = {entry_of(request)[0]: request for request in requests}
        self.entries.update(loaded)
        return encode(count=len(loaded))

    def add(self, requests, context):
        sums = {}
        for request in requests:
            name, value, _ = entry_of(request)
            sums[name] = sums.get(name, 0) + value
            yield encode(name, sums[name])


def server():
    serving = grpc.server(futures.ThreadPoolExecutor(8), options=OPTIONS)
    serving.add_generic_rpc_handlers((Store(),))
    port = serving.add_insecure_port("127.0.0.1:0")
    serving.start()
    print(f"127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    serving.stop(None).wait()


if sys.argv[1] == "client":
    client(sys.argv[2])
else:
    server()
