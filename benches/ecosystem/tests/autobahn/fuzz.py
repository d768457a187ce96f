"""Runs cases of the suite against a server, and writes down what it says of each.

    fuzz.py RESULTS CASES NAME PORT

CASES are patterns of the suite with commas between them, as in `1.*,7.9.*`; one with a minus
before it leaves out. RESULTS gets what came of each case, and the names of the groups that they
are in.
"""

import json
import pathlib
import sys

from autobahntestsuite import fuzzing
from autobahntestsuite.case import CaseCategories, CaseSubCategories
from octets import octets, text
from twisted.internet import reactor
from twisted.python import log

KEPT = ["behavior", "behaviorClose", "remoteCloseCode", "result", "resultClose", "duration"]


class Protocol(fuzzing.FuzzingClientProtocol):
    """The suite's, with text at the side of the cases and bytes at the side of the connection."""

    def sendFrame(self, opcode, payload=b"", payload_len=None, **options):
        payload = octets(payload)
        if payload_len is not None:
            # In autobahn itself this takes Python 2's division.
            payload = (payload * (payload_len // len(payload) + 1))[:payload_len]
        super().sendFrame(opcode, payload, **options)

    def sendMessage(self, payload, *arguments, **options):
        super().sendMessage(octets(payload), *arguments, **options)

    def sendMessageFrameData(self, payload, *arguments, **options):
        return super().sendMessageFrameData(octets(payload), *arguments, **options)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        reason = None if reasonUtf8 is None else octets(reasonUtf8)
        super().sendCloseFrame(code, reason, isReply)

    def onMessage(self, payload, isBinary):
        super().onMessage(text(payload), isBinary)

    def onPong(self, payload):
        super().onPong(text(payload))

    # The suite's own log of what was sent and has come, which nobody reads here.

    def logRxOctets(self, data):
        pass

    def logTxOctets(self, data, sync):
        pass

    def logRxFrame(self, frameHeader, payload):
        pass

    def logTxFrame(self, frameHeader, payload, repeatLength, chopsize, sync):
        # Counted: a case compares it with what it wanted sent.
        counts = self.txFrameStats
        counts[frameHeader.opcode] = counts.get(frameHeader.opcode, 0) + 1


class Factory(fuzzing.FuzzingClientFactory):
    def createReports(self):
        """Not here: `main` writes what is wanted of them."""


def main(file, cases, name, port):
    # What goes wrong within a case must not pass for something that the server has done.
    errors = []
    log.addObserver(lambda event: errors.append(event) if event["isError"] else None)
    fuzzing.FuzzingClientProtocol = Protocol
    patterns = cases.split(",")
    spec = {
        "servers": [{"agent": name, "url": f"ws://127.0.0.1:{port}"}],
        "cases": [pattern for pattern in patterns if not pattern.startswith("-")],
        "exclude-cases": [pattern[1:] for pattern in patterns if pattern.startswith("-")],
    }
    factory = Factory(spec)
    reactor.run()
    for event in errors:
        print(log.textFromEventDict(event))
    results = factory.agents.get(name, {})
    missing = set(factory.specCases) - set(results)
    if errors or missing or not results:
        sys.exit(f"{len(errors)} errors; not run: {sorted(missing)}")
    results = {
        case: {part: results[case][part] for part in KEPT} for case in factory.specCases
    }
    pathlib.Path(file).write_text(json.dumps([results, groups(results)]))


def groups(cases):
    """Of the cases, as in `6.4`; compression has many that differ in nothing here."""
    names = {}
    for case in cases:
        first, second = case.split(".")[:2]
        within = f"{first}.{second}"
        if within in CaseSubCategories and first not in ["12", "13"]:
            names[within] = CaseSubCategories[within]
        else:
            names[first] = CaseCategories[first]
    return names


main(*sys.argv[1:])
