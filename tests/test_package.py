"""The package as a whole: public names, who imports whom, every module alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import samplug

ROOT = Path(samplug.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py"))
FLOORS = [  # imports point down: a module may use those of its own floor and below
    {"arguments", "words", "yolo_hook", "room", "nn"},
    {
        "view",
        "rle",
        "mask_forms",
        "prompt_forms",
        "spelled",
        "prompt_batches",
        "prompts",
        "prompt_schedule",
        "masks",
        "raster",
    },
    {"files", "array_files", "tensor_files", "recognise", "variants", "checkpoints", "host"},
    {"embeddings", "tracking"},
    {"train"},
    {"predict"},
    {"measure", "benchmark"},
    {"model"},
    {"cli", "checks"},
]
HOSTS = {"predict", "measure", "benchmark", "model", "cli", "host", "checks", "checkpoints"}


def imports_of(path):
    """(module, whether at the top of the file) for everything a file imports."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module == "samplug":
            names += [f"samplug.{alias.name}" for alias in node.names]
        yield from ((name, node in tree.body) for name in names)


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def floor(name):
    return next(i for i, names in enumerate(FLOORS) if name in names)


def test_all_names_are_what_can_be_imported():
    for name in samplug.__all__:
        assert getattr(samplug, name) is not None
    assert set(samplug.__all__) <= set(dir(samplug))
    with pytest.raises(AttributeError, match="SAM2Predictor"):
        _ = samplug.SAM3


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) != "__init__"], ids=str)
def test_imports_point_down(path):
    for name, at_top in imports_of(path):
        parts = name.split(".")
        if parts[0] == "samplug" and len(parts) > 1 and parts[1] != "__version__" and at_top:
            assert floor(parts[1]) <= floor(room(path)), f"{path.name} imports {name}"
        if parts[0] == "ultralytics":
            assert room(path) in HOSTS, f"{path.name} imports {name}"


def test_the_networks_need_torch_alone():
    outside = {name.split(".")[0] for path in (ROOT / "nn").rglob("*.py") for name, _ in imports_of(path)}
    assert outside - set(sys.stdlib_module_names) <= {"torch", "samplug"}


@pytest.mark.slow
@pytest.mark.parametrize("path", MODULES, ids=str)
def test_every_module_imports_first_in_a_fresh_interpreter(path):
    if path.name == "__main__.py":
        return
    module = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    run = subprocess.run([sys.executable, "-W", "error", "-c", f"import {module}"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_importing_the_package_loads_neither_torch_nor_ultralytics():
    code = "import sys, samplug, samplug.arguments; sys.exit(any(m in sys.modules for m in ('torch', 'ultralytics')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
