"""What the documents show runs and prints what they say, what they name exists, and what they point to is there."""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import posjournal_async
import posjournal_async.testing
import run as door
from posjournal_async.cli.app import posjournal

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *PAGES]
MODULES = [
    "posjournal_async",
    *(found.name for found in pkgutil.walk_packages(posjournal_async.__path__, "posjournal_async.")),
]

# What people import: the front door, the testing kit, and what has a door of its own because it needs an extra.
PUBLIC = [
    "posjournal_async",
    "posjournal_async.testing",
    *(
        name
        for name in MODULES
        if re.fullmatch(r"posjournal_async\.(adapters\.\w+|codecs\.(msgspec|pydantic|protobuf))", name)
    ),
]

# What a fence may say it holds. Each is checked in its way, but text: that is what something printed.
LANGUAGES = {"console", "json", "python", "text", "toml"}

# A program that a reader saves under this name, and runs by a later block of its page.
SAVED = re.compile(r"# (\w+\.py)\n")

# Where a reader who follows a page installs: here that is done already.
INSTALLING = ("python3 -m venv", ". .venv/bin/activate", "pip install")

# Commands of a shell that need not be looked up.
SHELL = {"cat", "cd", "cp", "echo", "head", "ls", "mkdir", "printf", "rm", "tail", "true", "wc"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a document.

    Attributes:
        document: Where it stands.
        line: The first line of its content, from 1.
        language: What its fence says.
        content: What is in it.
        follows: Whether nothing but empty lines stands between it and the block before.
    """

    document: Path
    line: int
    language: str
    content: str
    follows: bool

    @property
    def place(self) -> str:
        """The document and the line."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    def compiled(self) -> object:
        """Its code, which a traceback finds at its place."""
        code = "\n" * (self.line - 1) + self.content
        return compile(code, str(self.document), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def blocks_of(document: Path) -> Iterator[Block]:
    """The fenced blocks of a document, in order."""
    text = document.read_text()
    end = 0
    for fence in re.finditer(r"^(`{3,})(\S*)[^\n]*\n(.*?)^\1$", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, fence.start(3)) + 1
        yield Block(document, line, fence[2], fence[3], follows=not text[end : fence.start()].strip())
        end = fence.end()


def commands_of(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with what it printed."""
    for part in re.split(r"^\$ ", block.content, flags=re.MULTILINE)[1:]:
        command, _, printed = part.replace("\\\n", "").partition("\n")
        yield command.partition(" #")[0].strip(), printed


def of_kind(language: str) -> list[Block]:
    """All blocks of a language."""
    return [block for block in BLOCKS if block.language == language]


BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]
SESSIONS = sorted({block.document for block in BLOCKS if block.language == "python" and SAVED.match(block.content)})
ALONE = [block for block in of_kind("python") if block.document not in SESSIONS]
PRINTED = {
    before.place: block.content
    for before, block in pairwise(BLOCKS)
    if block.document == before.document and block.language == "text" and block.follows
}


def assert_same(printed: str, shown: str) -> None:
    """Compare what was printed with what is shown, where `...` stands for anything."""
    example = doctest.Example("", shown)
    checker = doctest.OutputChecker()
    if not checker.check_output(shown, printed, doctest.ELLIPSIS):
        pytest.fail(checker.output_difference(example, printed, doctest.ELLIPSIS))


def test_the_blocks_are_found() -> None:
    """Otherwise the tests below would try none."""
    assert len([block for block in ALONE if block.place.startswith("README.md")]) >= 2
    assert [document.name for document in SESSIONS] == ["getting-started.md"]
    assert len([block for block in ALONE if block.place in PRINTED and "concepts.md" in block.place]) >= 6


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_each_block_is_of_a_kind_that_is_checked(document: Path) -> None:
    """No code escapes by a fence that says nothing or something else, or that does not begin its line."""
    text = document.read_text()
    blocks = list(blocks_of(document))
    assert len(re.findall(r"^\s*```", text, re.MULTILINE)) == 2 * len(blocks)
    languages = {block.language for block in blocks if not block.language.startswith("{")}
    assert languages <= LANGUAGES


@pytest.mark.parametrize("block", ALONE, ids=lambda block: block.place)
def test_a_block_runs(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each block runs by itself, in an empty directory; `await` outside a function is run by an event loop.

    What it prints is what the text block right behind it shows, if there is one.
    """
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    result = eval(block.compiled(), names)  # type: ignore[arg-type]  # noqa: S307 - our own documents
    if inspect.iscoroutine(result):
        asyncio.run(result)
    if block.place in PRINTED:
        assert_same(capsys.readouterr().out, PRINTED[block.place])


@pytest.mark.parametrize("document", SESSIONS, ids=lambda document: document.name)
def test_a_page_can_be_followed(document: Path, tmp_path: Path) -> None:
    """Its programs are saved and its commands are run, in order and in one directory, and print what is shown.

    One that kills itself, as the page says, was killed.
    """
    killers: set[str] = set()
    for block in blocks_of(document):
        if block.language == "python":
            saved = SAVED.match(block.content)
            assert saved is not None, f"{block.place}: expected a program with its name in the first line"
            (tmp_path / saved[1]).write_text(block.content)
            if "SIGKILL" in block.content:
                killers.add(f"python {saved[1]}")
        elif block.language == "console":
            for command, shown in commands_of(block):
                if command.startswith(INSTALLING):
                    assert not shown
                    continue
                done = run_in(tmp_path, command)
                assert done.returncode == (-9 if command in killers else 0), f"{command}\n{done.stderr}"
                assert_same(done.stdout, shown)


def run_in(directory: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run what a reader types, with the Python that runs the tests."""
    if command.startswith("posjournal "):  # the same door, also where no script is installed
        command = f"python -m posjournal_async {command.removeprefix('posjournal ')}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", f"exec {command}"],  # noqa: S607 - any bash
        cwd=directory,
        env={**os.environ, "PATH": path, "PYTHONWARNINGS": "error", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("block", of_kind("console"), ids=lambda block: block.place)
def test_the_commands_of_a_console_exist(block: Block) -> None:
    """What a reader is told to type is there, with the options that are given."""
    commands = list(commands_of(block))
    assert commands, "expected lines that begin with `$ `"
    for command, _ in commands:
        words: list[str] = []
        lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        for word in [*lexer, "|"]:
            if word in {"|", "&&", ";", "&"}:
                assert missing_of(words) is None, f"{shlex.join(words)}: {missing_of(words)}"
                words = []
            elif not (not words and re.fullmatch(r"\w+=.*", word)):
                words.append(word)


def missing_of(words: list[str]) -> str | None:
    """Say what a command names and is not there, or None."""
    if not words or words in ([".", ".venv/bin/activate"], [".ci/run"]) or words[0] in SHELL:
        return None
    tool, *arguments = words
    lookups = {"pip": missing_of_pip, "pytest": missing_of_pytest, "posjournal": missing_of_posjournal}
    if tool in {"python", "python3"}:
        return missing_of_python(arguments)
    return lookups[tool](arguments) if tool in lookups else f"{tool} is not known here"


def missing_of_python(arguments: list[str]) -> str | None:
    """Say which module, script or command of `run.py` is not there."""
    match arguments:
        case ["-m", "posjournal_async", *rest]:
            return missing_of_posjournal(rest)
        case ["-m", module, *_]:
            return None if importlib.util.find_spec(module) else f"there is no module {module}"
        case ["run.py", command, *_]:
            return None if command in door.GROUPS else f"run.py has no {command}"
        case [script, *_]:
            is_saved = any(f"```python\n# {script}\n" in document.read_text() for document in SESSIONS)
            return None if is_saved or (ROOT / script).is_file() else f"there is no {script}"
    return "python alone shows nothing"


def missing_of_pip(arguments: list[str]) -> str | None:
    """Say which extra is not there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.fullmatch(r"install (?:posjournal_async|\.)(?:\[([\w,]+)\])?", " ".join(arguments))
    if named is None:
        return f"pip {arguments} is not known here"
    missing = set(named[1].split(",") if named[1] else ()) - set(extras)
    return f"there is no extra {missing}" if missing else None


def missing_of_pytest(arguments: list[str]) -> str | None:
    """Say which file is not there."""
    missing = [word for word in arguments if word.endswith(".py") and not (ROOT / word).is_file()]
    return f"there is no {missing}" if missing else None


def missing_of_posjournal(arguments: list[str]) -> str | None:
    """Say which command or option is not there."""
    if arguments[:1] in (["-h"], ["--help"], ["--version"]):
        return None
    command = posjournal.commands.get(arguments[0]) if arguments else None
    if command is None:
        return f"posjournal has no {arguments[:1]}"
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in arguments[1:] if re.match(r"--?[a-z]", word)}
    unknown = given - known - {"-h", "--help"}
    return f"posjournal {arguments[0]} has no {unknown}" if unknown else None


def test_data_can_be_parsed() -> None:
    """A block of JSON is one document, or one in each line; one of TOML is TOML."""
    for block in of_kind("toml"):
        tomllib.loads(block.content)
    for block in of_kind("json"):
        try:
            json.loads(block.content)
        except ValueError:
            for line in block.content.splitlines():
                json.loads(line)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Each link to a file of the repository has a file, and each picture too."""
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_every_page_is_in_the_table_of_contents() -> None:
    """A reader of the built pages comes by each."""
    listed = {"index"}
    for document in PAGES:
        for block in blocks_of(document):
            if block.language == "{toctree}":
                folder = document.parent.relative_to(ROOT / "docs")
                entries = [line for line in block.content.splitlines() if line and not line.startswith(":")]
                listed |= {str(folder / re.sub(r".*<(.*)>", r"\1", entry)) for entry in entries}
    assert listed == {str(page.relative_to(ROOT / "docs").with_suffix("")) for page in PAGES}


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_is_in_the_reference(package: str) -> None:
    """What people import is described, once."""
    text = "\n".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    described = re.findall(
        rf"^\.\. auto(?:class|exception|function|data):: {package}\.(\w+)(?:\(.*\))?$", text, re.MULTILINE
    )
    assert sorted(set(described) - {"Opening"}) == sorted(names_of(package))
    assert len(described) == len(set(described))


def names_of(package: str) -> list[str]:
    """What people import from a package: not what they import from the front door."""
    names = importlib.import_module(package).__all__
    return [name for name in names if package == "posjournal_async" or name not in posjournal_async.__all__]


def test_every_example_is_on_its_page() -> None:
    """The page of examples shows each file, under a heading that links can lead to."""
    text = (ROOT / "docs" / "examples.md").read_text()
    shown = re.findall(r"^### (\w+\.py)\n\n```\{literalinclude\} \.\./examples/\1\n", text, re.MULTILINE)
    assert sorted(shown) == sorted(path.name for path in (ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    """Each example in a docstring prints what it shows."""
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


@pytest.mark.parametrize("package", PUBLIC)
def test_the_examples_of_public_names_run_as_they_stand(package: str) -> None:
    """A reader who copies one needs nothing besides: not what its module happens to import."""
    runner = doctest.DocTestRunner(verbose=False)
    for name in names_of(package):
        for example in doctest.DocTestFinder().find(getattr(importlib.import_module(package), name), name, globs={}):
            runner.run(example)
    assert runner.failures == 0


def test_docstrings_have_examples() -> None:
    """The examples are found: `Journal` has one."""
    assert next(test.examples for test in doctest.DocTestFinder().find(posjournal_async.Journal, "Journal"))
