"""The rules of docs/architecture.md that a machine can hold: who imports whom, and what no file contains."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "fast_jukebox"
COMMAND_LINE = ROOT / "src" / "fast_jukebox_cli"

# Every arrow goes down: a package imports those of lower layers, and those beside it only where that makes no circle.
LAYERS = (
    {"utils"},
    {"audio", "hub", "sampling"},
    {"processing"},
    {"generation"},
    {"sessions"},
    {"models"},
    {"data", "conversion"},
    {"training"},
    {"distillation", "evaluation"},
    {"metrics", "labelling"},
    {"pipelines"},
    {"text_to_audio", "feature_extraction"},
    {"registration"},
    {"__init__"},
    {"demo"},
)
LAYER_OF = {package: number for number, layer in enumerate(LAYERS) for package in layer}
# Packages that may be absent or broken where fast_jukebox is imported: no module may need them to be imported.
INSIDE_FUNCTIONS_ONLY = {
    "accelerate",
    "datasets",
    "evaluate",
    "gradio",
    "libsonare",
    "matplotlib",
    "music21",
    "peft",
    "pretty_midi",
    "ray",
    "scipy",
    "starlette",
    "tinysoundfont",
    "torchaudio",
    "torchcodec",
}
# What stands in the Hub's place while tests run.
TEST_TOOLS = {"hub_api.py", "hub_server.py", "hub_store.py"}


def source_files() -> list[Path]:
    return sorted([*SOURCE.rglob("*.py"), *COMMAND_LINE.rglob("*.py")])


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in source_files()}


def is_metric_module(path: Path) -> bool:
    """Whether `evaluate` loads the file by its path: it derives from one of its classes, and nothing imports it."""
    parts = path.relative_to(SOURCE.parent).parts
    return len(parts) == 4 and parts[1] == "metrics" and parts[3] == f"{parts[2]}.py"


def package_of(module: str) -> str:
    """`sampling` of `fast_jukebox.sampling.engine`, `__init__` of `fast_jukebox` itself."""
    return [*module.split("."), "__init__"][1]


def is_type_checking(node: ast.AST) -> bool:
    test = getattr(node, "test", None)
    return isinstance(node, ast.If) and isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def imported_names(tree: ast.AST, *, module_level_only: bool = False) -> Iterator[str]:
    """Dotted names of everything imported; of `from a import b` it is `a.b`.

    With `module_level_only` what runs as the file is imported, else everything, for type checkers and in functions too.
    """
    for node in ast.iter_child_nodes(tree):
        if module_level_only and is_type_checking(node):
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


def imported_modules(path: Path) -> set[str]:
    """Modules of the two packages that a file imports, anywhere in it."""
    found = set()
    for name in imported_names(ast.parse(path.read_text(encoding="utf-8"))):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name and MODULES[name] != path:
            found.add(name)
    return found


@pytest.mark.parametrize("module", sorted(name for name in MODULES if not is_metric_module(MODULES[name])))
def test_imports_go_down(module):
    if not module.startswith("fast_jukebox_cli"):
        own = package_of(module)
        assert own in LAYER_OF, f"the package `{own}` is in no layer"
        above = [
            name
            for name in imported_modules(MODULES[module])
            if name.startswith("fast_jukebox_cli") or LAYER_OF[package_of(name)] > LAYER_OF[own]
        ]
        assert not above, f"{module} imports from above: {above}"


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Files that import one another, around any number of corners."""
    reach = {module: set(names) for module, names in graph.items()}
    grown = True
    while grown:
        grown = False
        for names in reach.values():
            more = set().union(*(reach.get(name, set()) for name in names)) - names
            names |= more
            grown = grown or bool(more)
    return sorted({tuple(sorted(n for n in reach[m] if m in reach.get(n, set()))) for m in reach if m in reach[m]})


def test_no_two_files_import_each_other():
    assert not circles({module: imported_modules(path) for module, path in MODULES.items()})


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [("b", "c")]


def definitions(text: str) -> Iterator[tuple[list[str], set[str]]]:
    """The names that each statement of a module defines (none of a statement that only runs), and what it mentions."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            continue
        defined = [node.name] if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else []
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        defined += [target.id for target in targets if isinstance(target, ast.Name)]
        mentioned = {getattr(part, "id", getattr(part, "attr", None)) for part in ast.walk(node)}
        texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and type(part.value) is str]
        mentioned |= {text for text in texts if text.isidentifier()}
        yield defined, mentioned - {None, *defined}


def names_in(*folders: str) -> set[str]:
    """Every word of the code and pages in some folders and files, but for this one."""
    files = [path for folder in folders for path in [ROOT / folder, *(ROOT / folder).rglob("*")]]
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".md")]
    return set(re.findall(r"\w+", " ".join(texts))) - ALONE.keys()


# Public names that nothing but its module or a test mentions, and why they stay.
ALONE = {
    "read_file": "reads what somebody else may have made, within a bound",
}
# `evaluate` finds the class in a module of metrics by its base class.
METRIC_CLASSES = {
    name
    for path in MODULES.values()
    if is_metric_module(path)
    for defined, _ in definitions(path.read_text(encoding="utf-8"))
    for name in defined
}


def test_every_public_name_is_used_by_the_package_and_by_a_test():
    mentions: dict[str, set[str]] = {}
    begun: set[str] = set()
    users: dict[str, set[str]] = {}
    for path in MODULES.values():
        for defined, mentioned in definitions(path.read_text(encoding="utf-8")):
            if not defined and path.name != "__init__.py":
                begun |= mentioned
            for name in defined:
                mentions.setdefault(name, set()).update(mentioned)
                if name != "__all__":
                    for other in mentioned:
                        users.setdefault(other, set()).add(name)
    public = {name for name in mentions if not name.startswith("_")} - METRIC_CLASSES - ALONE.keys()
    shown = begun | names_in("examples", "demo", "benchmarks", "docs", "README.md")
    alone = {name for name in public - shown if not users.get(name, set()) - {name}}
    assert not alone, f"only tests use {sorted(alone)}: delete them, or list them in ALONE with the reason"
    # What tests name, and what that uses in turn; metrics and examples are run by their paths.
    reached = begun | METRIC_CLASSES | (names_in("tests", "examples", "benchmarks") & mentions.keys())
    todo = [name for name in reached if name in mentions]
    while todo:
        new = (mentions[todo.pop()] & mentions.keys()) - reached
        reached |= new
        todo += new
    assert not public - reached, f"no test uses {sorted(public - reached)}"


@pytest.mark.parametrize("path", [path for path in source_files() if not is_metric_module(path)], ids=module_of)
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
import fast_jukebox.audio.io
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from fast_jukebox_cli.app import app
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
        "fast_jukebox.audio.io",
        "typing.TYPE_CHECKING",
        "fast_jukebox_cli.app.app",
        "fast_jukebox.hub",
        "fast_jukebox.data",
        "fast_jukebox.demo",
        "datasets",
        "fast_jukebox.training",
    }
    at_import = set(imported_names(ast.parse(code), module_level_only=True))
    assert everything - at_import == {
        "fast_jukebox_cli.app.app",
        "fast_jukebox.hub",
        "fast_jukebox.demo",
        "datasets",
        "fast_jukebox.training",
    }


def test_every_test_file_is_collected():
    """Nothing that looks like a test lies where pytest does not look, or under a name that it does not collect."""
    for folder in ("src", "examples", "demo", "benchmarks"):
        assert not list((ROOT / folder).rglob("test_*.py"))
    strays = [
        path
        for path in (ROOT / "tests").rglob("*.py")
        if not re.fullmatch(r"(test_\w+|conftest)\.py", path.name) and path.name not in TEST_TOOLS
    ]
    assert not strays


def written_files() -> list[Path]:
    folders = ("src", "tests", "examples", "demo", "benchmarks", "docs", "model_cards", ".ci", ".github")
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


def test_types_are_checked_with_every_code():
    """What torch or transformers leave no other way for is ignored by line, with its code."""
    assert "disable_error_code" not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    bare = re.compile(r"#\s*type:\s*ignore(?!\[)")
    assert not [path for path in source_files() if bare.search(path.read_text(encoding="utf-8"))]
