"""The shape of the project, held by tests: who imports whom, what loads when, where SQL lives, how long things get."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
PACKAGES = ("rubrics", "calibration", "judge", "tune", "dashboard")
# Each package may import itself and these, at module level and inside functions alike.
MAY_IMPORT = {
    "rubrics": set(),
    "calibration": {"rubrics"},
    "judge": {"rubrics", "calibration"},
    "tune": {"rubrics", "calibration", "judge"},
    "dashboard": {"rubrics", "calibration", "judge"},
}
# Composition roots put the packages together: they may import any of them, and nobody imports them.
ROOTS = ("judge.cli", "dashboard.app", "tune.__main__")
HEAVY = (
    "aiohttp",
    "ctranslate2",
    "duckdb",
    "jinja2",
    "litellm",
    "openai",
    "pandas",
    "polars",
    "ray",
    "scipy",
    "sklearn",
    "streamlit",
    "torch",
    "transformers",
)
FILE_LINES, LONG_FILE_LINES, LONG_FILES = 400, 600, ("judge/store/", "judge/cli/")
FUNCTION_LINES, PARAMETERS = 60, 8
VAGUE = {"utils", "util", "helpers", "helper", "manager", "managers", "base", "common", "misc"}
SQL = re.compile(
    r"^\s*(SELECT\s.+\sFROM|SELECT\s+\S|INSERT\s+INTO|CREATE\s+(OR\s+REPLACE\s+)?(TABLE|VIEW|INDEX)|DELETE\s+FROM|ALTER\s+TABLE|COPY\s)",
    re.DOTALL,
)
# Who reads environment variables, and why.
READS_ENVIRONMENT = {
    "judge/environment.py": "the one function that reads settings; the command line and the API's defaults call it",
    "judge/cli/": "the composition root",
}
SOURCES = sorted(path for package in PACKAGES for path in (REPO / package).rglob("*.py"))
IDS = [path.relative_to(REPO).as_posix() for path in SOURCES]
each_source = pytest.mark.parametrize("path", SOURCES, ids=IDS)


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a source file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def relative(path: Path) -> str:
    """The path inside the repository, with slashes."""
    return path.relative_to(REPO).as_posix()


def module_of(path: Path) -> str:
    """The dotted name of a source file's module."""
    parts = path.relative_to(REPO).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


def is_root(module: str) -> bool:
    """Whether a module belongs to a composition root."""
    return any(module == root or module.startswith(root + ".") for root in ROOTS)


def for_types_only(node: ast.stmt) -> bool:
    """Whether a statement is an ``if TYPE_CHECKING:`` block, which never runs."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def nodes(tree: ast.AST, *, lazy: bool, types: bool) -> Iterator[ast.AST]:
    """Walk a tree; ``lazy`` also enters function bodies, ``types`` also enters what only type checkers read."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and not lazy:
            continue
        if isinstance(child, ast.stmt) and for_types_only(child) and not types:
            continue
        yield child
        yield from nodes(child, lazy=lazy, types=types)


def imports(path: Path, *, lazy: bool, types: bool) -> set[str]:
    """The absolute dotted names that a file imports, relative ones resolved, submodules named where they exist."""
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in nodes(tree_of(path), lazy=lazy, types=types):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                origin = ".".join([*above, *([origin] if origin else [])])
            submodules = {f"{origin}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= submodules
            if len(submodules) < len(node.names):
                found.add(origin)
    return found


def test_the_five_packages_are_regular_packages() -> None:
    """Each package has an __init__.py: without one it would merge with a folder of that name in the user's project."""
    for package in PACKAGES:
        folders = {REPO / package, *(file.parent for file in (REPO / package).rglob("*.py"))}
        assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


@each_source
def test_imports_follow_the_chain(path: Path) -> None:
    """rubrics <- calibration <- judge <- tune and dashboard: a package imports only what stands to its left."""
    module = module_of(path)
    own = module.split(".")[0]
    allowed = set(PACKAGES) if is_root(module) else {own, *MAY_IMPORT[own]}
    seen = {name for name in imports(path, lazy=True, types=True) if name.split(".")[0] in PACKAGES}
    assert {name for name in seen if name.split(".")[0] not in allowed} == set()
    if not is_root(module):
        assert {name for name in seen if is_root(name)} == set(), "composition roots are imported by nobody"


@each_source
def test_imports_are_relative_inside_a_package(path: Path) -> None:
    """Inside a package imports are relative, across packages absolute, so that packages can be moved as they are."""
    own = module_of(path).split(".")[0]
    absolute = {
        name
        for node in ast.walk(tree_of(path))
        if isinstance(node, (ast.Import, ast.ImportFrom)) and not getattr(node, "level", 0)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    if is_root(module_of(path)):  # a script that Streamlit or Python runs has no package to be relative to
        return
    assert {name for name in absolute if name.split(".")[0] == own} == set()


def test_there_are_no_import_cycles() -> None:
    """No module reaches itself through imports at module level."""
    graph = {name: imports(path, lazy=False, types=False) & MODULES.keys() - {name} for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Every string constant that is not a docstring, with its line; f-strings count by their constant parts."""
    tree = tree_of(path)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


@each_source
def test_sql_lives_in_the_store(path: Path) -> None:
    """Only judge/store/ and judge/schema/ speak SQL; everybody else gets frames and values."""
    if relative(path).startswith("judge/store/"):
        return
    assert [(line, text[:60]) for line, text in strings(path) if SQL.match(text)] == []
    assert "duckdb" not in {name.split(".")[0] for name in imports(path, lazy=True, types=True)} or is_root(
        module_of(path)
    )


def test_sql_files_are_numbered_migrations() -> None:
    """Migrations are numbered without gaps from 001, and .sql files are found nowhere else."""
    files = sorted(path for package in PACKAGES for path in (REPO / package).rglob("*.sql"))
    assert {path.parent for path in files} == {REPO / "judge" / "schema"}
    numbers = [int(path.name.split("_")[0]) for path in files]
    assert numbers[0] == 1
    assert all(later == earlier + 1 for earlier, later in pairwise(numbers))


def loaded_after(code: str) -> set[str]:
    """The top-level packages in sys.modules after running some code in a fresh interpreter."""
    script = f"import sys\n{code}\nprint('\\n' + ' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rsplit("\n", 2)[-2].split())


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    """`import judge` (and each of the others) loads no data frame, database, statistics, web or model library."""
    assert loaded_after(f"import {package}") & set(HEAVY) == set()


def test_help_loads_nothing_heavy() -> None:
    """`judge --help` answers from click alone: not even pydantic or numpy is loaded."""
    code = """
sys.argv = ["judge", "--help"]
from judge.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code
"""
    assert loaded_after(code) & {*HEAVY, "pydantic", "numpy", "yaml", "rich"} == set()


def calls(path: Path) -> Iterator[tuple[int, str]]:
    """Every call in a file as (line, dotted name as written)."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


@each_source
def test_only_the_command_line_prints(path: Path) -> None:
    """`print` is called under judge/cli only: a library returns values."""
    if not relative(path).startswith(("judge/cli/", "tune/__main__.py")):
        assert [line for line, name in calls(path) if name == "print"] == []


@each_source
def test_nothing_runs_text_as_code(path: Path) -> None:
    """Text from models and files is never unpickled, evaluated, loaded as arbitrary YAML or shown unescaped."""
    forbidden = re.compile(
        r"^(eval|exec|yaml\.(load|unsafe_load|full_load)|pickle\.\w+|marshal\.\w+|shelve\.\w+|joblib\.load|os\.system)$"
    )
    assert [(line, name) for line, name in calls(path) if forbidden.match(name)] == []
    assert imports(path, lazy=True, types=True) & {"pickle", "cloudpickle", "marshal", "shelve", "dill"} == set()
    keywords = {
        (node.arg, ast.unparse(node.value)) for node in ast.walk(tree_of(path)) if isinstance(node, ast.keyword)
    }
    assert (
        keywords
        & {("unsafe_allow_html", "True"), ("trust_remote_code", "True"), ("shell", "True"), ("weights_only", "False")}
        == set()
    )


@each_source
def test_the_environment_is_read_in_one_place(path: Path) -> None:
    """Environment variables are read where READS_ENVIRONMENT says and why; everybody else takes arguments."""
    if relative(path).startswith(tuple(READS_ENVIRONMENT)):
        return
    read = [
        node.lineno
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv", "os.environb")
    ]
    assert read == []


@each_source
def test_the_clock_is_passed_in(path: Path) -> None:
    """rubrics and calibration are pure: they ask no clock and draw no unseeded random number."""
    if relative(path).startswith(("rubrics/", "calibration/")):
        unseeded = re.compile(
            r"^(time\.time|datetime\.(datetime\.)?(now|utcnow|today)|date\.today|(np|numpy)\.random\.(?!default_rng|Generator|SeedSequence)\w+|random\.(?!Random)\w+|uuid\.uuid\d)$"
        )
        assert [(line, name) for line, name in calls(path) if unseeded.match(name)] == []
        assert [
            node.lineno
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("default_rng")
            and not (node.args or node.keywords)
        ] == []


def code_lines(path: Path) -> int:
    """Lines that are neither blank, nor comment, nor docstring."""
    tree = tree_of(path)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    told = {
        line
        for node in ast.walk(tree)
        if isinstance(node, documented) and ast.get_docstring(node) is not None
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    lines = path.read_text(encoding="utf-8").splitlines()
    return sum(
        1
        for number, line in enumerate(lines, 1)
        if number not in told and line.strip() and not line.lstrip().startswith("#")
    )


@each_source
def test_files_functions_and_signatures_stay_short(path: Path) -> None:
    """A file has at most 400 code lines (store and command line 600), a function 60 lines and 8 parameters."""
    limit = LONG_FILE_LINES if relative(path).startswith(LONG_FILES) else FILE_LINES
    assert code_lines(path) <= limit
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            told = ast.get_docstring(node, clean=False)
            length = (node.end_lineno or 0) - node.lineno + 1 - (told.count("\n") + 1 if told else 0)
            assert length <= FUNCTION_LINES, f"{node.name} has {length} lines without its docstring"
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            counted = [argument for argument in arguments if argument.arg not in ("self", "cls")]
            if not relative(path).startswith("judge/cli/"):  # a click command takes one parameter for each option
                assert len(counted) <= PARAMETERS, f"{node.name} takes {len(counted)} parameters: a type is missing"


def test_module_names_say_something() -> None:
    """No module is called utils, helpers, manager, base or common."""
    assert {name for name in MODULES if name.rsplit(".", 1)[-1].strip("_") in VAGUE} == set()


def test_dashboard_files_shadow_nothing() -> None:
    """Streamlit puts the dashboard folder first on sys.path: no file in it is called like a package that we import."""
    taken = {*PACKAGES, "numpy", "pandas", "altair", *HEAVY, *sys.stdlib_module_names}
    assert {path.stem for path in (REPO / "dashboard").glob("*.py")} & taken == set()


def test_tests_are_flat() -> None:
    """tests/ has no package: an __init__.py there could shadow the packages under test."""
    assert list((REPO / "tests").rglob("__init__.py")) == []
    stray = {
        path.name
        for path in (REPO / "tests").glob("*.py")
        if not re.fullmatch(r"test_\w+\.py|conftest\.py|typing_api\.py", path.name)
    }
    assert stray == set()
