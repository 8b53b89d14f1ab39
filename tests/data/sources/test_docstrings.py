"""The scanner against Python's own parser."""

import ast
import json
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysl.data.sources.docstrings import docstrings

STDLIB = Path(sysconfig.get_paths()["stdlib"])
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def by_ast(node: ast.AST, min_chars: int, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, (ast.Module, *DEFINITIONS)):
        text = ast.get_docstring(node)
        if text is not None and len(text) >= min_chars:
            yield name, text
    for child in ast.iter_child_nodes(node):
        inner = f"{name}.{child.name}".lstrip(".") if isinstance(child, DEFINITIONS) else name
        yield from by_ast(child, min_chars, inner)


@pytest.mark.parametrize("package", ["asyncio", "json", "unittest", "email", "collections", "logging", "concurrent/futures"])
def test_finds_what_the_parser_finds_in_the_standard_library(package: str) -> None:
    found = 0
    for path in sorted((STDLIB / package).glob("*.py")):
        source = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = list(by_ast(ast.parse(source), 200))
        assert docstrings(source, 200) == expected, path.name
        found += len(expected)
    assert found > 4


TRICKY = '''#!/usr/bin/env python
# a comment, "with quotes and one ' more
"""Module
   with an indented line."""
import os
if os.name:
    def first(a={"b": 1}, c="(", *, d: dict[str, int] = {}) -> "int:":  # a comment: here
        # and here "
        r"""Raw \\d."""
else:
    class Second: """One line."""
class Third(
    Base,
    metaclass=Meta,
):

    \'\'\'Single \\
quotes \\x41 and """three""" inside.\'\'\'
    name = """No docstring."""
    async def method(self):
        "x"
        """Second statement."""
        for x in y:
            def inner():
                u"""Inner."""
    def formatted(self):
        f"""No docstring {x}."""
    def dedented(self):
        if x:
            """Not the first."""
        text = "def nothing(): "
        call("""
def nothing():
    \'\'\'In a string.\'\'\'
""")
    @property
    def joined(self):
        """Made """ "of two"
    def added(self):
        """Formatted %s.""" % x
def after(x=[1, 2,
  3]):
    """Flush
left text.""" ; x = 1
'''


def test_finds_what_the_parser_finds_in_tricky_code() -> None:
    expected = [row for row in by_ast(ast.parse(TRICKY), 1) if row[1] not in ("x", "Made of two")]
    assert docstrings(TRICKY.encode(), 1) == expected
    assert [name for name, _ in expected] == ["", "first", "Second", "Third", "Third.method.inner", "after"]
    assert docstrings(TRICKY.replace("\n", "\r\n").encode(), 1) == expected


def test_encodings_and_limits() -> None:
    latin = '# -*- coding: latin-1 -*-\n"""Größe."""\n'
    assert docstrings(latin.encode("latin-1"), 1) == [("", "Größe.")]
    assert docstrings(latin.encode("latin-1"), 7) == []
    with pytest.raises(UnicodeDecodeError):
        docstrings('"""Größe."""'.encode("latin-1"), 1)
    with pytest.raises(SyntaxError):
        docstrings(b'"""Broken \\N{no such name} escape."""', 1)


def test_json_is_read_with_its_names() -> None:
    names = [name for name, _ in docstrings(Path(json.__file__).read_bytes(), 200)]
    assert names == ["", "dump", "dumps", "load", "loads"]
