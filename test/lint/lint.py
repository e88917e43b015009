#!/usr/bin/env python3
"""The walls of the house: `make lint`.

Each check is a function that yields complaints, each beginning with a file's
name. The build itself is one of them, with warnings as errors, and what its
objects call of each other another. Nothing is written into the tree.
"""

import collections
import concurrent.futures
import json
import os
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).resolve().parents[2]
EXTENSION = "convex_fdw"

# Floors of the house. A folder of src/ is a room; rooms of the same floor do
# not see each other.
FLOORS = {
    "ground": 0, "wire": 1, "protocol": 2, "shape": 3, "write": 4,
    "fdw": 5, "subscription": 5, "process": 6, "sql": 7,
}

# Headers that are the one face of several files, http_call.c and so on.
FACES = ("api", "http")

# What may stand only in certain files of src/.
RESERVED = (
    (r'#\s*include\s*[<"]curl/', r"http_curl\.c", "libcurl is known to http_curl.c alone"),
    (r'#\s*include\s*[<"]foreign/fdwapi\.h', r"fdw(_\w+)?\.[ch]", "fdwapi.h is for the room fdw"),
    (r"\b(PG_VERSION_NUM|PG_MAJORVERSION_NUM|LIBCURL_VERSION_NUM)\b", r"compat\.h",
     "version macros are for compat.h"),
    (r"(?s)convex_subscription_(?:rel|state) SET(?:(?!WHERE).)*?\b(?:state|load|phase|is_staged|snapshot|page_cursor|synced_ts|"
     r"cursor|reload|attempts|retry_at|error_\w+|copied_rows|load_\w+|shown_from|generation|check\w*|tablet) = ",
     r"sub_state\.c", "states are changed by sub_state.c alone"),
)

Room = collections.namedtuple("Room", "name floor number")


def files(*patterns):
    return sorted(p for pattern in patterns for p in TOP.glob(pattern) if p.is_file())


def name(path):
    return str(path.relative_to(TOP))


def place(path, text, position):
    return f"{name(path)}:{text.count(chr(10), 0, position) + 1}"


# -- include walls ---------------------------------------------------------

def room_of(path):
    banner = path.read_text().partition("*/")[0]
    found = re.search(r"^ \* Room: (\w+) (\d+)\.(\d+)$", banner, re.M)
    return Room(found[1], int(found[2]), int(found[3])) if found else None


def may_include(path, room, header, header_room):
    if header.stem == path.stem:
        return True
    if header_room.floor < room.floor:
        return True
    return header_room.name == room.name and header_room.number < room.number


def check_walls():
    sources = files("src/*/*.c", "src/*/*.h")
    rooms = {path: room_of(path) for path in sources}
    taken = {}
    for path, room in rooms.items():
        if room is None:
            yield f"{name(path)}: the banner has no line ' * Room: <name> <floor>.<number>'"
            continue
        if FLOORS.get(room.name) != room.floor:
            yield f"{name(path)}: there is no room '{room.name}' on floor {room.floor}"
        if room.name != path.parent.name:
            yield f"{name(path)}: lies in the folder {path.parent.name}, its banner says room '{room.name}'"
        neighbour = taken.setdefault(room, path)
        if neighbour.stem != path.stem:
            yield f"{name(path)}: {room.floor}.{room.number} of room '{room.name}' is {neighbour.name}"
        yield from check_includes(path, room, rooms)
    for path in sources:
        yield from check_reserved(path)


def check_includes(path, room, rooms):
    text = path.read_text()
    for include in re.finditer(r'^\s*#\s*include\s*"([^"]+)"', text, re.M):
        header = TOP / "src" / include[1]
        header_room = rooms.get(header)
        if header_room is None and (path.parent / include[1]).exists():
            yield f"{place(path, text, include.start(1))}: {include[1]} is named without its folder"
        if header_room and not may_include(path, room, header, header_room):
            yield (
                f"{place(path, text, include.start(1))}: {include[1]} is in room "
                f"{header_room.name} {header_room.floor}.{header_room.number}, "
                f"which {room.name} {room.floor}.{room.number} does not see"
            )


def check_reserved(path):
    text = without_comments(path.read_text())
    for pattern, allowed, sentence in RESERVED:
        if re.fullmatch(allowed, path.name):
            continue
        for found in re.finditer(pattern, text):
            yield f"{place(path, text, found.start())}: {sentence}"


def without_comments(text):
    """Blank out C comments, keeping the line numbers."""
    blank = lambda m: m[0] if m[0][0] == '"' else re.sub(r"[^\n]", " ", m[0])
    return re.sub(r'"(?:\\.|[^"\\])*"|/\*.*?\*/', blank, text, flags=re.S)


# -- errors ----------------------------------------------------------------

LITERALS = r'((?:"(?:\\.|[^"\\])*"\s*|PRI\w+\s*|(?:U?INT64_FORMAT)\s*)+)'


def call_at(text, start):
    """The text of a call from its name to its closing parenthesis."""
    depth = 0
    for token in re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|[()]').finditer(text, start):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if depth == 0 and token[0] == ")":
            return text[start:token.end()]
    return text[start:]


def check_errors():
    for path in files("src/*/*.c", "src/*/*.h"):
        text = without_comments(path.read_text())
        for found in re.finditer(r"\bereport(?:_domain)?\s*\(\s*(?:ERROR|FATAL|PANIC)\b", text):
            if not re.search(r"\berrcode\w*\s*\(", call_at(text, found.start())):
                yield f"{place(path, text, found.start())}: ereport(ERROR) without errcode"
        for found in re.finditer(r"\berr(msg|detail|hint)(?:_plural)?\s*\(\s*" + LITERALS + r"[,)]", text):
            yield from check_sentence(place(path, text, found.start()), found[1], found[2])


def check_sentence(where, kind, literals):
    said = "".join(re.findall(r'"((?:\\.|[^"\\])*)"', literals))
    if kind == "msg" and (said.endswith(".") or "\\n" in said):
        yield f"{where}: errmsg is one phrase without a full stop: {said!r}"
    if kind != "msg" and not re.search(r"([.?)]|%\w+|%\.\*s)$", said):
        yield f"{where}: err{kind} is a full sentence: {said!r}"


# -- the build -------------------------------------------------------------

def make(*arguments):
    command = ["make", "-s", "--no-print-directory", "-C", TOP, *arguments]
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    done = subprocess.run(command, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"make {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def check_build():
    """Once as it is built; what catches errors also with -Og, where gcc sees
    locals that a longjmp may clobber in functions that -O2 does not inline."""
    command = shlex.split(make("COPT=-Werror", "compile-command"))
    jobs = [(path, []) for path in files("src/*/*.c")]
    jobs += [(path, ["-Og"]) for path, _ in jobs if "PG_TRY(" in path.read_text()]
    with tempfile.TemporaryDirectory() as scratch:

        def compile_one(job):
            path, flags = job
            output = pathlib.Path(scratch, path.stem + "".join(flags) + ".o")
            return subprocess.run(
                [*command, *flags, "-o", output, name(path)],
                cwd=TOP, stderr=subprocess.PIPE, text=True,
            )

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for (path, flags), done in zip(jobs, pool.map(compile_one, jobs)):
                if done.returncode != 0:
                    how = " ".join(["", *flags])
                    yield f"{name(path)}: does not compile{how} without warnings\n{done.stderr.rstrip()}"
        yield from check_calls(pathlib.Path(scratch))


# -- call walls ------------------------------------------------------------

# What SQL or the postmaster calls by name; no file of ours needs it.
ENTRIES = r"(convex_|pg_finfo_convex_)\w+|_PG_init|Pg_magic_func"


def check_calls(objects):
    """What the linker sees: functions and variables of one file that another
    one calls or takes. They are of a lower floor, or of an earlier file of the
    same room, and their own file's header declares them."""
    defined, wanted = {}, collections.defaultdict(set)
    for path in files("src/*/*.c"):
        object = objects / (path.stem + ".o")
        if not object.exists():
            return
        symbols = subprocess.run(["nm", object], stdout=subprocess.PIPE, check=True, text=True)
        for *_, kind, symbol in map(str.split, symbols.stdout.splitlines()):
            if kind == "U":
                wanted[symbol].add(path)
            elif kind.isupper():
                defined[symbol] = path
    for symbol, path in sorted(defined.items()):
        users = wanted.get(symbol, ())
        if not users and not re.fullmatch(ENTRIES, symbol):
            yield f"{name(path)}: {symbol} is not static, and no other file uses it"
        room = room_of(path)
        for user in sorted(users):
            if not may_include(user, room_of(user), path, room):
                yield f"{name(user)}: uses {symbol} of {name(path)}, which it does not see"
        if users and not any(re.search(rf"\b{symbol}\b", text) for text in headers_of(path)):
            yield f"{name(path)}: {symbol} is not declared in {path.stem}.h"


def headers_of(path):
    """A file's own header, and the face of its family, if it has one."""
    face = path.stem.partition("_")[0]
    for stem in {path.stem, face if face in FACES else path.stem}:
        header = path.with_name(stem + ".h")
        if header.exists():
            yield without_comments(header.read_text())


# -- versions --------------------------------------------------------------

def read(path):
    file = TOP / path
    return file.read_text() if file.exists() else ""


def first(pattern, text):
    found = re.search(pattern, text, re.M)
    return found[1] if found else None


def check_versions():
    version = first(r"^default_version\s*=\s*'([^']+)'", read(f"{EXTENSION}.control"))
    if version is None:
        yield f"{EXTENSION}.control: no default_version"
        return
    release = version if version.count(".") == 2 else version + ".0"
    meta = json.loads(read("META.json") or "{}")
    provided = meta.get("provides", {}).get(EXTENSION, {})
    said = {
        "META.json: version": (meta.get("version"), release),
        "META.json: provides": (provided.get("version"), release),
        "CHANGELOG.md: first heading": (first(r"^## \[?v?(\d+(?:\.\d+)+)", read("CHANGELOG.md")), release),
    }
    for what, (found, wanted) in said.items():
        if found not in (wanted, release, version):
            yield f"{what} is {found}, {EXTENSION}.control says {version}"
    script = f"sql/{EXTENSION}--{version}.sql"
    for needed in {script, provided.get("file", script)}:
        if not (TOP / needed).exists():
            yield f"{needed}: missing, {EXTENSION}.control or META.json names it"
    for path in files("src/*/*.c", "src/*/*.h"):
        for found in re.findall(r'^#define\s+\w*VERSION\s+"([\d.]+)"', path.read_text(), re.M):
            if found not in (version, release):
                yield f"{name(path)}: version {found}, {EXTENSION}.control says {version}"


# -- lists of tests --------------------------------------------------------

# Which listed name is which file, and where no other file may lie.
TESTS = {
    "REGRESS": "test/regress/sql/{}.sql",
    "ISOLATION": "test/isolation/{}.spec",
    "CHAPTERS": "test/pgtap/{}.sql",
    "TAPS": "test/t/{}.pl",
}


def check_test_lists():
    listed = {kind: names for kind, *names in map(str.split, make("-f", "dev.mk", "list-tests").splitlines())}
    wanted = set()
    for kind, pattern in TESTS.items():
        for test in listed[kind]:
            wanted.add(pattern.format(test))
            if listed[kind].count(test) > 1:
                yield f"dev.mk: {kind} lists {test} twice"
    expected = {f"expected/{test}.out" for kind in ("REGRESS", "ISOLATION") for test in listed[kind]}
    for missing in sorted(f for f in wanted | expected if not (TOP / f).exists()):
        yield f"{missing}: missing, dev.mk lists its test"
    for path in files(*(str(pathlib.Path(p).parent / "*") for p in TESTS.values()), "expected/*"):
        variant = re.sub(r"_\d\.out$", ".out", name(path))
        if name(path) not in wanted and variant not in expected:
            yield f"{name(path)}: a stray, dev.mk lists no such test"
    for path in files("**/*.orig", "**/*.rej", "**/*~", "**/core", "**/nohup.out"):
        if ".git" not in path.parts:
            yield f"{name(path)}: a stray"


# -- SQL scripts -----------------------------------------------------------

OBJECT = r"(FOREIGN DATA WRAPPER|EVENT TRIGGER|FUNCTION|PROCEDURE|AGGREGATE|TABLE|VIEW|TYPE|DOMAIN|TRIGGER|SCHEMA|SERVER)"
NAME = r'(?:[\w@]+\.)?"?(\w+)"?'


def check_sql():
    for path in files(f"sql/{EXTENSION}--*.sql"):
        text = path.read_text()
        if path.stem.count("--") == 1:
            use = f"CREATE EXTENSION {EXTENSION}"
        else:
            use = f"ALTER EXTENSION {EXTENSION} UPDATE TO '{path.stem.split('--')[2]}'"
        code = re.sub(r"^\s*(?:/\*.*?\*/|--[^\n]*\n|\s)*", "", text, flags=re.S)
        if not code.startswith(f'\\echo Use "{use}" to load this file. \\quit\n'):
            yield f"{name(path)}: does not begin with the \\echo guard line for {use}"
        plain = strip_sql(text)
        if re.search(r"\bSECURITY\s+DEFINER\b", plain, re.I):
            yield f"{name(path)}: SECURITY DEFINER"
        yield from check_comments(path, plain)


def strip_sql(text):
    """Without comments and without what stands in quotes."""
    token = r"--[^\n]*|/\*.*?\*/|(\$\w*\$).*?\1|'(?:[^']|'')*'"
    return re.sub(token, " ", text, flags=re.S)


def check_comments(path, text):
    def count(start):
        pattern = start + OBJECT.replace(" ", r"\s+") + r"\s+(?:IF\s+NOT\s+EXISTS\s+)?" + NAME
        found = re.findall(pattern, text, re.I)
        return collections.Counter((" ".join(kind.upper().split()), object.lower()) for kind, object in found)

    made = count(r"(?:^|;)\s*CREATE\s+(?:OR\s+REPLACE\s+)?(?:CONSTRAINT\s+)?")
    described = count(r"(?:^|;)\s*COMMENT\s+ON\s+")
    for (kind, object), number in made.items():
        if described[kind, object] < number:
            yield f"{name(path)}: no COMMENT ON {kind} {object}"


# -- the README's SQL ------------------------------------------------------

README_TEST = "test/regress/sql/readme.sql"


def check_readme():
    """Every statement that README.md shows is run by its test."""
    readme = read("README.md")
    tested = set(statements(read(README_TEST)))
    for block in re.finditer(r"^```sql\n(.*?)^```$", readme, re.M | re.S):
        for statement in statements(block[1]):
            if statement not in tested:
                yield f"{place(TOP / 'README.md', readme, block.start(1))}: not in {README_TEST}: {statement}"


def statements(text):
    """SQL without psql's commands, comments and line breaks; a URL and a key may be any."""
    text = re.sub(r"^\\.*$|--.*$", "", text, flags=re.M)
    text = re.sub(r"\b(deployment_url|deploy_key)\s+:?'[^']*'", r"\1 ?", text)
    return [" ".join(part.split()) for part in re.split(r";|\\gset\b", text) if part.strip()]


# -- scripts and white space -----------------------------------------------

def text_files():
    for path in files(
        "*", ".ci/*", "src/**/*", "sql/*", "expected/*", "docs/**/*",
        "test/run/*", "test/lint/*", "test/emulator/**/*", "test/bench/*",
        "test/pgtap/**/*", "test/regress/sql/*", "test/isolation/*", "test/t/**/*",
    ):
        if path.suffix in (".o", ".so", ".pyc", ".zip", ".gz", ".png", ".svg"):
            continue
        if "__pycache__" in path.parts or path.name == ".build-flags":
            continue
        yield path


def interpreter(path, text):
    if path.suffix == ".py":
        return "python3"
    if path.suffix in (".pl", ".pm"):
        return "perl"
    shebang = re.match(r"#!.*?(\w+)\n", text)
    return shebang[1] if shebang else None


def check_scripts():
    for path in text_files():
        text = path.read_text(errors="replace")
        program = interpreter(path, text)
        if program == "python3":
            try:
                compile(text, str(path), "exec")
            except SyntaxError as error:
                yield f"{name(path)}:{error.lineno}: {error.msg}"
        elif program in ("bash", "sh"):
            yield from complaint(path, [program, "-n", path])
        elif program == "perl" and has_perl_modules():
            yield from complaint(path, ["perl", "-c", "-I", TOP / "test/t/lib", path])
        if text.startswith("#!") and not os.access(path, os.X_OK) and program != "perl":
            yield f"{name(path)}: has a #! line but may not be executed"


def has_perl_modules():
    return subprocess.run(["perl", "-MIPC::Run", "-e1"], stderr=subprocess.DEVNULL).returncode == 0


def complaint(path, command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        yield f"{name(path)}: {done.stdout.strip()}"


def check_white_space():
    for path in text_files():
        if path.suffix == ".out":
            continue
        text = path.read_text(errors="replace")
        if text and not text.endswith("\n"):
            yield f"{name(path)}: no newline at the end"
        for number, line in enumerate(text.split("\n"), 1):
            if line != line.rstrip():
                yield f"{name(path)}:{number}: white space at the end of the line"
            if path.suffix in (".c", ".h") and re.match(r"\t* {4}", line):
                yield f"{name(path)}:{number}: indented with spaces"


def check_pictures():
    folder = TOP / "docs/pictures"
    draw = runpy.run_path(str(folder / "draw.py"))
    for picture, sequence in draw["PICTURES"].items():
        path = folder / f"{picture}.svg"
        if path.read_text() != "\n".join(draw["draw"](*sequence)) + "\n":
            yield f"{name(path)}: is not what docs/pictures/draw.py draws"


CHECKS = (
    check_walls,
    check_errors,
    check_versions,
    check_test_lists,
    check_sql,
    check_readme,
    check_scripts,
    check_white_space,
    check_pictures,
    check_build,
)


def main():
    complaints = 0
    for check in CHECKS:
        for sentence in check():
            complaints += 1
            print(sentence)
    if complaints:
        print(f"lint: {complaints} complaints")
        return 1
    print("lint: clean")
    return 0


if __name__ == "__main__":
    sys.exit(main())
