"""Python 2's strings, for the suite: one character for each byte.

    a case: text of characters 0 to 255 ──octets()──▶ bytes, on the wire ──text()──▶ a case

The suite is written for Python 2, where a string is bytes: it slices them in the middle of
characters, joins them, and puts them into messages. Text of Latin-1 does all of that in the same
way in Python 3, so that only what goes to the connection, and comes from it, is to be turned.
"""

import binascii


def octets(string):
    return string.encode("latin-1") if isinstance(string, str) else bytes(string)


def text(string):
    return string if isinstance(string, str) else bytes(string).decode("latin-1")


def b2a_hex(string):
    return text(binascii.b2a_hex(octets(string)))
