"""How the package is built: `python tests/support/house.py` prints it, tests/test_package.py holds it.

Counted are files a folder, modules in the root, long files and bodies, constants of one name with two values, imports
that point up and circles of imports; imports inside functions and under `TYPE_CHECKING` count like any other.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "samplug"
LAW = (  # a module may import from its own line and from those below; README and the house's plan say the same
    {"cli"},
    {"annotate", "model"},
    {"train"},
    {"val", "benchmark", "export"},
    {"predict"},
    {"sources", "prompts", "runtime", "checkpoints", "files", "data"},
    {"tracking", "masks"},
    {"nn"},
    {"transforms", "resources", "arguments", "values", "errors", "host", "nn.constants"},
)
PEERS = ("benchmark.runners.ultralytics_",)  # what is measured beside us
ULTRALYTICS = ("predict", "sources", "host", "model", "cli", "train", "val", "export", "data.yolo")
DOORS = ("__init__", "__main__", "yolo_hook")  # what starts programs, or names what users may import, stands above all
MOST_FILES, MOST_IN_ROOT, LONG_FILE, LONG_BODY, FEW_LONG_BODIES = 13, 10, 400, 40, 2


def files() -> list[Path]:
    """Every module of the package."""
    return sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    """`predict.image` of samplug/predict/image.py; a package goes by its own name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(name: str) -> str:
    """The first part of a module's name."""
    return name.partition(".")[0]


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, those of the package without its name in front."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("samplug.") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "samplug":
            package = (node.module or "").removeprefix("samplug").lstrip(".")
            for alias in node.names:
                inner = f"{package}.{alias.name}".lstrip(".")
                folder = ROOT.joinpath(*inner.split("."))
                yield inner if folder.is_dir() or folder.with_suffix(".py").is_file() else package or "__init__"
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def level_of(name: str) -> int:
    """The line of the law that a module stands on, counted from the bottom."""
    lines = [i for i, rooms in enumerate(reversed(LAW)) if name in rooms or room_of(name) in rooms]
    return lines[0] if lines else -1  # the lowest: nn.constants is numbers alone


def upward() -> list[str]:
    """Imports that point up."""
    return [
        f"{name_of(path)} imports {other}"
        for path in files()
        if path.stem not in DOORS
        for other in imported(path)
        if level_of(other) > level_of(name_of(path))
    ]


def strangers() -> list[str]:
    """Imports of Ultralytics where it has no place, and of anything but torch in the networks."""
    found = []
    for path in files():
        name = name_of(path)
        tops = {other.split(".")[0] for other in imported(path) if level_of(other) < 0}
        if "ultralytics" in tops and not name.startswith(ULTRALYTICS + PEERS):
            found.append(f"{name} imports ultralytics")
        if room_of(name) == "nn" and (outside := tops - {"torch", "__init__"} - set(sys.stdlib_module_names)):
            found.append(f"{name} imports {', '.join(sorted(outside))}")
        found += [f"{name} imports relatively" for other in imported(path) if other.startswith(".")]
    return found


def circles() -> list[list[str]]:
    """Groups of modules that import each other, file by file."""
    graph = {name_of(path): set(imported(path)) for path in files() if path.stem != "__init__"}
    reach: dict[str, set[str]] = {}

    def reachable(name: str) -> set[str]:
        if name not in reach:
            seen, todo = set[str](), [name]
            while todo:
                for other in graph.get(todo.pop(), ()):
                    if other in graph and other not in seen:
                        seen.add(other)
                        todo.append(other)
            reach[name] = seen
        return reach[name]

    rings = {frozenset(b for b in reachable(a) if a in reachable(b)) for a in graph if a in reachable(a)}
    return sorted(sorted(ring) for ring in rings)


def crowded() -> list[str]:
    """Folders with too many files; the root has a lower limit."""
    counts: dict[Path, int] = defaultdict(int)
    for folder in (ROOT, ROOT.parent / "tests"):
        for path in folder.rglob("*.py"):
            counts[path.parent] += 1
    return [
        f"{folder.relative_to(ROOT.parent)}: {count}"
        for folder, count in sorted(counts.items())
        if count > (MOST_IN_ROOT if folder == ROOT else MOST_FILES)
    ]


def long_files() -> list[str]:
    """Files above the limit."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files()}
    return [f"{name_of(path)}: {length}" for path, length in lengths.items() if length > LONG_FILE]


def long_bodies() -> list[str]:
    """Functions whose bodies, without signature and docstring, are above the limit."""
    found = []
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                if length > LONG_BODY:
                    found.append(f"{name_of(path)}.{node.name}: {length}")
    return found


def two_values() -> list[str]:
    """Constants of one name with several values."""
    values: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in files():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign)
                else []
            )
            for target in targets:
                if isinstance(target, ast.Name) and target.id.isupper() and node.value is not None:
                    values[target.id][ast.unparse(node.value)].append(name_of(path))
    return [
        f"{name}: " + "; ".join(f"{value[:40]} in {', '.join(places)}" for value, places in found.items())
        for name, found in sorted(values.items())
        if len(found) > 1
    ]


REPORT = {
    "imports that point up": upward,
    "imports out of place": strangers,
    "circles": lambda: [" <-> ".join(ring) for ring in circles()],
    f"folders of more than {MOST_FILES} files, or {MOST_IN_ROOT} in the root": crowded,
    f"files of more than {LONG_FILE} lines": long_files,
    f"bodies of more than {LONG_BODY} lines": long_bodies,
    "constants of one name with several values": two_values,
}


def main() -> None:
    """Print the report, and how large the package is."""
    for title, find in REPORT.items():
        rows = find()
        print(f"{title}: {len(rows)}", *rows, sep="\n    ")
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files())
    print(f"modules: {len(files())}, lines: {lines}")


if __name__ == "__main__":
    main()
