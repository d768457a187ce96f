"""Makes Python 3 of the part of the Autobahn test suite that asks a server.

    convert.py SOURCE TARGET

SOURCE is what PyPI's package unpacks to. Fixers of fissix (lib2to3, which newer Pythons lack) do
what is mechanical; CHANGES is the rest, and each of them has to be found. See octets.py for what
becomes of strings.
"""

import pathlib
import re
import shutil
import sys

from fissix.refactor import RefactoringTool

FIXERS = ["has_key", "import", "print", "unicode", "xrange"]

# File, what it has, and what it gets.
CHANGES = [
    # A class cannot come before what is derived from it.
    ("case/*.py", r"\(object, Case, \)", "(Case, )"),
    ("case/*.py", r"binascii\.(b2a_hex|hexlify)\(", "b2a_hex("),
    # Pickles of what is equal are equal in Python 2; in Python 3 they tell an object that is
    # there twice from two objects.
    ("case/case.py", r"pickle\.dumps\((\w+)\) == pickle\.dumps\((\w+)\)", r"\1 == \2"),
    ("case/case6_x_x.py", r"v\.validate\(vss\[:i\]\)", "v.validate(octets(vss[:i]))"),
    # The producer of a case that the suite itself leaves out.
    ("case/__init__.py", r"from \.case9_9_1 import \*\n", ""),
    ("case/case10_1_1.py", r"\) / self\.p\.autoFragmentSize", ") // self.p.autoFragmentSize"),
    # Real bytes, for a hash, and for the length in characters.
    ("case/case12_x_x.py", r"m\.update\(msg\)", "m.update(octets(msg))"),
    ("case/case12_x_x.py", r"= msg\.decode\(", "= octets(msg).decode("),
    ("fuzzing.py", r"binascii\.b2a_hex\(", "b2a_hex("),
    ("fuzzing.py", r"return dd\.decode\(", "return octets(dd).decode("),
    # Without reports as HTML and without TLS, and so without what those need.
    ("fuzzing.py", r"from \.report import (.*\\\n)*.*\n", ""),
    ("fuzzing.py", r"import reactor, ssl\n", "import reactor\n"),
    ("fuzzing.py", r"\bssl\.\w+\(.*\)", "None"),
]

PARTS = ["_version.py", "caseset.py", "fuzzing.py", "case/*.py"]


def main(source, target):
    source, target = pathlib.Path(source, "autobahntestsuite"), pathlib.Path(target)
    tool = RefactoringTool([f"fissix.fixes.fix_{name}" for name in FIXERS])
    found = [0] * len(CHANGES)
    for path in (path for part in PARTS for path in sorted(source.glob(part))):
        name = path.relative_to(source)
        code = path.read_bytes().decode("latin-1").replace("\r\n", "\n")
        # What it says of its encoding is no longer so.
        code = re.sub(r"\A#.*coding[:=].*\n", "\n", code)
        code = str(tool.refactor_string(code + "\n", str(path)))
        for index, (part, old, new) in enumerate(CHANGES):
            if name.match(part):
                code, count = re.subn(old, new, code)
                found[index] += count
        result = target / "autobahntestsuite" / name
        result.parent.mkdir(parents=True, exist_ok=True)
        result.write_text("from octets import b2a_hex, octets\n" + code, encoding="utf-8")
    for change, count in zip(CHANGES, found):
        if count == 0:
            sys.exit(f"convert.py: {change[0]} of the suite has no {change[1]}")
    # Its own imports modes that are not wanted here.
    (target / "autobahntestsuite/__init__.py").write_text(
        "from ._version import __version__ as version\n", encoding="utf-8"
    )
    shutil.copytree(source / "testdata", target / "autobahntestsuite/testdata", dirs_exist_ok=True)


main(*sys.argv[1:])
