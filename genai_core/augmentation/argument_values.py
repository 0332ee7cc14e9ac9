"""Plausible values for a parameter, as Python source text, by its annotation and its name.

The lists are short and fixed: a value must look right to a reader and be copied exactly by a small model, no more.
Bare names (`stream`, `len`) stand for what has no literal; nothing is ever executed.
"""

from __future__ import annotations

import random
import re

_VALUES: dict[str, tuple[str, ...]] = {
    "int": ("1", "2", "3", "4", "5", "7", "8", "10", "12", "16", "20", "32", "40", "64", "80", "100"),
    "float": ("0.1", "0.25", "0.5", "1.5", "2.0", "2.5", "3.0", "4.5", "10.0", "0.75"),
    "number": ("2", "3", "5", "9", "10", "0.5", "1.5", "2.25", "-1", "4.0", "100"),
    "bool": ("True", "False"),
    "text": (
        "'blue sky'",
        "'hello world'",
        "'red green'",
        "'one two'",
        "'a b c'",
        "'spam'",
        "'good day'",
        "'apple'",
        "'warm sun'",
        "'cold rain'",
        "'lemon tea'",
    ),
    "bytes": ("b'abc'", "b'data'", "b'spam'", "b'hello'", "b'xyz'", "b'one two'"),
    "path": (
        "'data.txt'",
        "'notes.txt'",
        "'/tmp/log'",
        "'src/main.py'",
        "'table.csv'",
        "'old.txt'",
        "'new.txt'",
        "'backup'",
        "'image.png'",
        "'report.md'",
    ),
    "name": (
        "'alpha'",
        "'beta'",
        "'main'",
        "'test'",
        "'item'",
        "'user'",
        "'color'",
        "'size'",
        "'worker'",
        "'root'",
        "'temp'",
        "'value'",
    ),
    "host": ("'localhost'", "'127.0.0.1'", "'example.org'", "'mail.example.org'"),
    "url": ("'http://example.org'", "'http://localhost/a'", "'ftp://example.org'", "'http://example.org/b'"),
    "address": ("('localhost', 80)", "('127.0.0.1', 8080)", "('example.org', 25)", "('localhost', 9000)"),
    "encoding": ("'utf-8'", "'ascii'", "'latin-1'", "'utf-16'"),
    "errors": ("'strict'", "'ignore'", "'replace'"),
    "mode": ("'r'", "'w'", "'rb'", "'wb'", "'a'"),
    "pattern": ("'*.txt'", "'[a-z]+'", "'a.*b'", "'*.py'", "'x+'"),
    "format": ("'%Y-%m-%d'", "'%H:%M'", "'%s'", "'csv'", "'zip'"),
    "character": ("','", "';'", "'-'", "'a'", "'x'", "':'"),
    "list": ("[1, 2, 3]", "[3, 1, 2]", "['a', 'b']", "[5, 8]", "['red', 'blue']", "[0, 1]", "['x', 'y', 'z']", "[10, 20]"),
    "function": ("len", "str", "abs", "print", "int", "sorted", "max", "repr", "sum"),
    "class": ("int", "str", "dict", "list", "ValueError", "object", "float"),
    "stream": ("stream", "handle", "reader", "output", "log_file"),
    "object": ("thing", "item", "data", "record", "node", "entry"),
    "number_or_text": ("1", "5", "10", "'a'", "'blue'", "'spam'", "None", "[1, 2]"),
}  # fmt: skip

_NAMES: dict[str, str] = {
    "int": "n k count size length limit maxsize maxlen width height depth level lineno port pid fd fileno bufsize "
    "offset start stop step index indent number max_length tabsize firstweekday year month day hour minute second "
    "compresslevel maxlevels flags buffering lines nlines workers max_workers processes bits digits position pos "
    "columns rows signum backlog maxbytes mask uid gid status code version first last low high",
    "float": "timeout interval delay seconds secs ratio cutoff weight probability sigma mu alpha beta",
    "number": "x y z a b c d v val r theta",
    "bool": "strict verbose quiet recursive sort reverse inclusive daemon closed create follow_symlinks exist_ok check "
    "shell ensure_ascii sort_keys allow_nan keepends posix comments skipkeys binary blocking block wait force "
    "case_sensitive full shallow optimize",
    "text": "text s string line msg message description title prompt doc body content contents source comment word "
    "sentence header statement stmt src_text",
    "bytes": "bytes_ payload buffer chunk binary_data",
    "path": "path filename file_name pathname src dst dir directory root top dirname cwd base_dir logfile filepath "
    "srcfile",
    "name": "name key prefix suffix module qualname user section option prog attr tag label group field title attribute "
    "modname module_name fullname package domain realm username password boundary command cmd",
    "host": "host hostname server ip",
    "url": "url uri base link",
    "address": "address server_address source_address addr",
    "encoding": "encoding charset",
    "errors": "errors",
    "mode": "mode",
    "pattern": "pattern pat regex glob",
    "format": "format fmt",
    "character": "ch char chr delimiter sep separator quotechar fillchar newline end c",
    "list": "iterable seq sequence items names args values options list population data weights choices argv fields "
    "iterables elements keys bases hosts",
    "function": "func function callback factory predicate target fn callable default_factory object_hook hook handler "
    "cmp fget fset fdel onerror",
    "class": "cls type class_ klass typ exception category",
    "stream": "fp f file fileobj stream sock socket infile outfile rfile wfile output input resp reader writer",
    "object": "obj object o node frame tb tree element thing context instance proxy",
}

_KIND_OF_NAME = {name: kind for kind, names in _NAMES.items() for name in names.split()}
_KIND_OF_ANNOTATION = {"int": "int", "float": "float", "str": "text", "bool": "bool", "bytes": "bytes", "list": "list"}
_FLAG_PREFIX = re.compile(r"(is|has|use|allow|ignore|follow|show|no|with|include|keep|skip|enable|disable|do)_")


def kind_of_parameter(name: str, annotation: str = "") -> str:
    """Return the kind of value that suits a parameter: its name first, then its annotation, then parts of its name."""
    plain = name.strip("_").lower()
    known = _KIND_OF_NAME.get(plain)
    by_annotation = _KIND_OF_ANNOTATION.get(annotation.partition("[")[0].strip())
    # A name refines "str" (an encoding, a path); any other annotation overrules the name.
    if by_annotation and not (by_annotation == "text" and known):
        return by_annotation
    if known:
        return known
    if _FLAG_PREFIX.match(plain):
        return "bool"
    parts = plain.split("_")
    return _KIND_OF_NAME.get(parts[-1]) or _KIND_OF_NAME.get(parts[0]) or "number_or_text"


def write_value(name: str, annotation: str, avoid: frozenset[str], rng: random.Random) -> str:
    """Return the source text of a value that suits the parameter and is not in `avoid`."""
    return rng.choice([value for value in _VALUES[kind_of_parameter(name, annotation)] if value not in avoid])
