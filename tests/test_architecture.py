"""The rules of docs/architecture.md that a machine can hold: who imports whom, and what no file contains."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "fast_jukebox"

# What a person is shown may come from any of these.
SHOWN = {
    "audio",
    "audio_writer",
    "processing",
    "models",
    "generation",
    "data",
    "evaluation",
    "conversion",
    "hub",
    "pipelines",
}
# Room -> rooms it may import, itself apart. `package` is what the root package exports.
ALLOWED = {
    "resampling": set(),
    "audio": {"resampling"},
    "audio_writer": set(),
    "unfinished": set(),
    "hub": set(),
    "processing": {"hub"},
    "generation": {"audio_writer", "processing", "unfinished"},
    "models": {"processing", "generation", "hub"},
    "conversion": {"audio", "processing", "models", "hub", "unfinished"},
    "data": {"audio", "processing", "models", "hub"},
    "training": {"models", "data", "hub"},
    "distillation": {"models", "data", "hub", "training"},
    "evaluation": {"audio", "processing", "models", "data", "hub"},
    "metrics": {"package", "evaluation"},
    "pipelines": {"audio", "models", "generation", "data", "evaluation", "conversion", "hub"},
    "registration": {"models", "processing", "pipelines", "conversion"},
    "__init__": {"models", "generation", "processing", "pipelines", "registration"},
    "commands": {"package", *SHOWN},
    "cli": {"package", "commands", *SHOWN},
    "demo": {"package", *SHOWN},
}
# Packages that may be absent or broken where fast_jukebox is imported: no module may need them to be imported.
INSIDE_FUNCTIONS_ONLY = {
    "accelerate",
    "datasets",
    "evaluate",
    "gradio",
    "matplotlib",
    "music21",
    "peft",
    "pretty_midi",
    "scipy",
    "tinysoundfont",
    "torchaudio",
    "torchcodec",
}
# What stands in the Hub's place while tests run.
TEST_TOOLS = {"hub_api.py", "hub_server.py", "hub_store.py"}
# Test files that watch over the package as a whole and so mirror no single file.
WHOLE_PACKAGE_TESTS = {"test_architecture.py", "test_import.py", "examples/test_readme.py"}


def source_files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def is_type_checking(node: ast.AST) -> bool:
    test = getattr(node, "test", None)
    return isinstance(node, ast.If) and (
        (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING")
        or (isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING")
    )


def imported_names(tree: ast.AST, *, module_level_only: bool = False) -> Iterator[str]:
    """Dotted names of everything imported when the file runs; of `from a import b` it is `a.b`."""
    for node in ast.iter_child_nodes(tree):
        if is_type_checking(node):
            yield from imported_names(ast.Module(node.orelse, []), module_level_only=module_level_only)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports within the package are written absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            yield from (argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant))
        if module_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield from imported_names(node, module_level_only=module_level_only)


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for name in imported_names(ast.parse(path.read_text(encoding="utf-8"))):
        parts = name.split(".")
        if parts[0] == "fast_jukebox":
            room = parts[1] if len(parts) > 1 else "package"
            rooms.add(room if (SOURCE / room).is_dir() or (SOURCE / f"{room}.py").is_file() else "package")
    return rooms


@pytest.mark.parametrize("path", source_files(), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_room_imports_only_the_rooms_before_it(path):
    room = room_of(path)
    assert room in ALLOWED, f"the room `{room}` is not in docs/architecture.md"
    forbidden = imported_rooms(path) - ALLOWED[room] - {room}
    assert not forbidden, f"`{room}` must not import {sorted(forbidden)}"


def is_metric_module(path: Path) -> bool:
    """Whether `evaluate` loads the file by its path: it derives from one of its classes, and nothing imports it."""
    parts = path.relative_to(SOURCE).parts
    return len(parts) == 3 and parts[0] == "metrics" and parts[2] == f"{parts[1]}.py"


@pytest.mark.parametrize(
    "path",
    [path for path in source_files() if not is_metric_module(path)],
    ids=lambda path: path.relative_to(SOURCE).as_posix(),
)
def test_optional_packages_are_imported_where_they_are_used(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    packages = {name.split(".")[0] for name in imported_names(tree, module_level_only=True)}
    assert not packages & INSIDE_FUNCTIONS_ONLY


def test_nothing_in_the_package_imports_what_stands_outside_it():
    for path in source_files():
        packages = {name.split(".")[0] for name in imported_names(ast.parse(path.read_text(encoding="utf-8")))}
        assert not packages & {"examples", "benchmarks", "tests"}, path


def test_the_import_reader_sees_every_way_to_import():
    code = """
import fast_jukebox.audio
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from fast_jukebox.cli import app
else:
    import fast_jukebox.hub
class A:
    import fast_jukebox.data
    def f(self):
        from fast_jukebox import demo
        try:
            import datasets
        except ImportError:
            importlib.import_module("fast_jukebox.training")
"""
    everything = set(imported_names(ast.parse(code)))
    assert everything == {
        "fast_jukebox.audio",
        "typing.TYPE_CHECKING",
        "fast_jukebox.hub",
        "fast_jukebox.data",
        "fast_jukebox.demo",
        "datasets",
        "fast_jukebox.training",
    }
    at_import = set(imported_names(ast.parse(code), module_level_only=True))
    assert everything - at_import == {"fast_jukebox.demo", "datasets", "fast_jukebox.training"}


def test_every_test_file_mirrors_a_source_file():
    tests = ROOT / "tests"
    orphans = []
    for path in sorted(tests.rglob("test_*.py")):
        folder, name = path.relative_to(tests).parent, path.name.removeprefix("test_")
        if path.relative_to(tests).as_posix() in WHOLE_PACKAGE_TESTS:
            continue
        base = ROOT if folder.parts[:1] in (("examples",), ("benchmarks",)) else SOURCE
        if not (base / folder / name).is_file():
            orphans.append(path.relative_to(ROOT).as_posix())
    assert not orphans


def test_every_source_file_has_a_test_file():
    untested = []
    for path in source_files():
        if path.name in ("__init__.py", "__main__.py") or is_metric_module(path):  # tests/metrics tests them all
            continue
        relative = path.relative_to(SOURCE)
        if not (ROOT / "tests" / relative.parent / f"test_{path.name}").is_file():
            untested.append(relative.as_posix())
    assert not untested


def test_every_test_file_is_collected():
    """Nothing that looks like a test lies where pytest does not look, or under a name that it does not collect."""
    for folder in ("src", "examples", "benchmarks"):
        assert not list((ROOT / folder).rglob("test_*.py"))
    strays = [
        path
        for path in (ROOT / "tests").rglob("*.py")
        if not re.fullmatch(r"(test_\w+|conftest)\.py", path.name) and path.name not in TEST_TOOLS
    ]
    assert not strays


def written_files() -> list[Path]:
    folders = ("src", "tests", "examples", "benchmarks", "docs", "model_cards", ".ci", ".github")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file() and path.suffix in (".md", ".toml", ".cff", ".yaml")]
    text = {".py", ".md", ".toml", ".cff", ".yaml", ".yml", ".json", ".jsonl", ".sh", ".txt", ""}
    return sorted(
        path for path in [*files, ROOT / "Makefile"] if path.suffix in text and "__pycache__" not in path.parts
    )


FORBIDDEN = {
    "a path of one machine": r"(?<![\w.])/(work|root|home|Users|mnt|scratch)/\w",
    "work left over": r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
    "a method that is not there": r"NotImplemented" + r"Error",
    "a number of a tracker": r"\b[Ii]ssue #?\d",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_contains(what):
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in written_files()
        if path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)
