"""The package as a whole: public names, who imports whom, every module alone; `support/house.py` prints it."""

import ast
import multiprocessing
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import house, words

import samplug


def test_all_names_are_what_can_be_imported():
    for name in samplug.__all__:
        assert getattr(samplug, name) is not None
    assert set(samplug.__all__) <= set(dir(samplug))
    with pytest.raises(AttributeError, match="SAM2Predictor"):
        _ = samplug.SAM3


def test_imports_point_down():
    assert house.upward() == []


def test_ultralytics_stays_where_it_belongs_and_the_networks_need_torch_alone():
    assert house.strangers() == []


def test_no_modules_import_each_other():
    assert house.circles() == []


def test_folders_files_and_bodies_are_of_a_size_to_be_read():
    assert house.crowded() == []
    assert house.long_files() == []
    assert len(house.long_bodies()) <= house.FEW_LONG_BODIES, house.long_bodies()


def test_a_constant_has_one_value_in_the_whole_package():
    assert house.two_values() == []


def test_the_readme_install_can_collect_every_test():
    tests = Path(__file__).parent
    project = (tests.parent / "pyproject.toml").read_text(encoding="utf-8")
    lists = re.findall(r"^(?:dependencies|test) = \[(.*?)\]$", project, re.MULTILINE | re.DOTALL)
    promised = set(re.findall(r'"([\w-]+)>=', " ".join(lists)))
    top = [node for path in tests.rglob("*.py") for node in ast.parse(path.read_text(encoding="utf-8")).body]
    names = [alias.name for node in top if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in top if isinstance(node, ast.ImportFrom)]
    own = {path.stem for path in tests.iterdir()} | {"samplug", "cv2", "PIL", "yaml"}  # Pillow, PyYAML: Ultralytics'
    wanted = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - own
    assert wanted <= promised, wanted - promised


def test_the_tests_compare_files_by_their_digests():  # as bytes, pytest looks for minutes for where two differ
    paths = [path for path in Path(__file__).parent.rglob("*.py") if path != Path(__file__)]
    compared = re.compile(r"assert .*read_bytes\(\) (==|!=)|assert .*(==|!=) .*read_bytes\(\)(?!\.|\)\.)")
    assert not {path.name for path in paths if compared.search(path.read_text(encoding="utf-8"))}


def test_no_module_begins_with_what_windows_has_not():
    unixes = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
    nodes = [node for path in house.files() for node in ast.parse(path.read_text(encoding="utf-8")).body]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert names & unixes == set()


def test_names_are_the_words_of_the_field():
    assert words.found() == []


@pytest.fixture(scope="module")
def fresh_interpreters():
    """Processes that have imported torch, which takes the longest, and nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    return context


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in house.files() if path.name != "__main__.py"], ids=house.name_of)
def test_every_module_imports_first_in_a_fresh_interpreter(path, fresh_interpreters):
    name = f"samplug.{house.name_of(path)}".removesuffix(".__init__")
    code = f"import sys, warnings; warnings.simplefilter('error'); assert 'samplug' not in sys.modules; import {name}"
    process = fresh_interpreters.Process(target=exec, args=[code])
    process.start()
    process.join(600)
    assert process.exitcode == 0


@pytest.mark.slow
def test_all_modules_import_in_a_fresh_interpreter_without_a_warning():
    names = [f"samplug.{house.name_of(path)}" for path in house.files() if path.name != "__main__.py"]
    code = "; ".join(f"import {name}".removesuffix(".__init__") for name in names)
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_importing_the_package_loads_neither_torch_nor_ultralytics():
    code = "import sys, samplug, samplug.arguments; sys.exit(any(m in sys.modules for m in ('torch', 'ultralytics')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


IMPORT_CPU_SECONDS = 1.0  # 0.15 on two slow cores; torchvision.ops alone takes more than this
MODELS = "SAM, SAM2VideoPredictor, SAM2CameraPredictor, SAM2DynamicInteractivePredictor"


@pytest.mark.parametrize("names", ["SAM", MODELS])
def test_importing_the_models_loads_no_package_that_ultralytics_does_not(names):
    code = (
        "import sys, time; from ultralytics import SAM; before = set(sys.modules); start = time.process_time()\n"
        f"from samplug import {names}\n"
        f"assert time.process_time() - start < {IMPORT_CPU_SECONDS}\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)\n"
        "assert new == {'samplug'}, new\n"
        "assert not {'torch._dynamo', 'torchvision.ops'} & (set(sys.modules) - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
