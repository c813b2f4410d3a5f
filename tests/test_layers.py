"""The house: each room imports only rooms that stand below it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "posjournal_async"

# From top to bottom. A folder stands for its modules, unless these are listed themselves.
LAYERS = [
    "__main__",  # the door of the command
    "cli",  # for people, on top of everything
    "mending",  # for the command: makes a journal whole again from outside
    "inspection",  # for the command: looks at a journal from outside
    "testing",  # for authors of storages: uses the library, and is not used by it
    "adapters",  # doors to other people's systems: each imports its extra, and nothing imports it
    "__init__",
    "journal",
    "contiguous",
    "opening",
    "recovery.repair",
    "recovery.plan",
    "recovery.facts",
    "recovery.__init__",
    "replay",
    "removal",
    "ending",
    "measuring",
    "commit",
    "steps",
    "parts",
    "reader",
    "sealed",
    "sealed_section",
    "data",
    "offsets",
    "checkpoint",
    "scan",
    "sections",
    "tail",
    "payloads",
    "config",
    "format.checkpoint_slot",
    "format.record",
    "format.index",
    "format.header",
    "format.__init__",
    "storage.readonly",
    "storage.file",
    "storage.memory",
    "storage.directory",
    "storage.descriptors",
    "storage.lane",
    "storage.threads",
    "storage.protocols",
    "storage.__init__",
    "waiting",
    "turns",
    "codecs.msgspec",
    "codecs.pydantic",
    "codecs.protobuf",
    "codecs.classes",
    "codecs.__init__",
    "codecs.plain",
    "codecs.protocols",
    "codecs.versions",
    "metrics",
    "log",
    "errors",
]

# Rooms whose modules stand at one level, and may import each other as long as that makes no circle.
OPEN_ROOMS = {"cli", "mending", "inspection", "testing"}


@dataclass(frozen=True)
class Import:
    """An import of one module of the package by another.

    Attributes:
        importer: Module that has the statement, named from the package on.
        imported: Module that it names.
        line: Where.
        in_function: Whether the statement stands inside a function.
    """

    importer: str
    imported: str
    line: int
    in_function: bool


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = sorted(module_name(path) for path in PACKAGE.rglob("*.py"))


def named(module: str) -> str:
    """The module that an import statement means: `posjournal_async.storage` is `storage.__init__`."""
    inside = module.removeprefix("posjournal_async").removeprefix(".")
    if inside in MODULES:
        return inside
    return f"{inside}.__init__".removeprefix(".")


def imports_of(module: str, source: str) -> list[Import]:
    """All imports of the package in a module, those for type checkers too."""
    found: list[Import] = []

    def visit(node: ast.AST, *, in_function: bool) -> None:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: imports are absolute"
            if node.module is not None and node.module.split(".")[0] == "posjournal_async":
                for alias in node.names:
                    inner = named(f"{node.module}.{alias.name}")
                    imported = inner if inner in MODULES else named(node.module)
                    found.append(Import(module, imported, node.lineno, in_function))
        elif isinstance(node, ast.Import):
            found.extend(
                Import(module, named(alias.name), node.lineno, in_function)
                for alias in node.names
                if alias.name.split(".")[0] == "posjournal_async"
            )
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, in_function=inside)

    visit(ast.parse(source), in_function=False)
    return found


IMPORTS = [
    found
    for module in MODULES
    for found in imports_of(module, (PACKAGE / f"{module.replace('.', '/')}.py").read_text())
]


def layer(module: str) -> str:
    """The entry of LAYERS that a module belongs to."""
    if module in LAYERS:
        return module
    return module.split(".", maxsplit=1)[0]


def offences(imports: list[Import]) -> list[str]:
    """The imports that do not go down."""
    return [
        f"{found.importer}, line {found.line}: imports {found.imported}, which does not stand below it"
        for found in imports
        if LAYERS.index(layer(found.imported)) <= LAYERS.index(layer(found.importer))
        and not (layer(found.imported) == layer(found.importer) and layer(found.importer) in OPEN_ROOMS)
    ]


def test_every_module_has_its_place() -> None:
    """A new module is put into LAYERS before anything imports it."""
    assert [module for module in MODULES if layer(module) not in LAYERS] == []


def test_imports_go_down() -> None:
    """No room imports one at its own level or above it, not even for its types."""
    assert IMPORTS
    assert offences(IMPORTS) == []


def test_imports_make_no_circle() -> None:
    """The modules can be put into an order, inside the open rooms too."""
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for found in IMPORTS:
        graph[found.importer].add(found.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")


def test_no_function_imports() -> None:
    """What a module needs stands at its top."""
    assert [found for found in IMPORTS if found.in_function] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from posjournal_async.journal import Journal", "journal"),
        ("from posjournal_async import Journal", "__init__"),
        ("from posjournal_async import commit", "commit"),
        ("import posjournal_async.journal", "journal"),
        ("def f():\n    from posjournal_async.storage import file", "storage.file"),
        ("if TYPE_CHECKING:\n    from posjournal_async.data import DataJournal", "data"),
    ],
)
def test_an_import_that_goes_up_is_found(source: str, expected: str) -> None:
    """However it is written, an import of a higher room by `sections` is an offence."""
    [found] = imports_of("sections", source)
    assert found.imported == expected
    assert found.in_function == source.startswith("def")
    assert (offences([found]) == []) == (expected == "storage.file")


def test_the_description_of_the_house_has_the_same_order() -> None:
    """The table in docs/architecture.md lists the rooms as they stand."""
    table = (ROOT / "docs" / "architecture.md").read_text().split("## The rooms")[1].split("\n## ")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    rooms = [name.removesuffix("/").removesuffix(".py") for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    described = [room for room in rooms if room not in OPEN_ROOMS]
    standing = list(dict.fromkeys(name.split(".")[0] for name in LAYERS if name.split(".")[0] not in OPEN_ROOMS))
    assert described == standing
