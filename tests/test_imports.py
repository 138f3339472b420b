"""Imports inside the package go one way, from the commands down to the maths, and never in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import modeling_dkd
from modeling_dkd.cli import COMMANDS


PACKAGE = Path(modeling_dkd.__file__).parent
# A room imports rooms of its own level and of lower ones; the flat files are the lowest.
LEVELS = [
    {"data"},
    {"embedding"},
    {"recognition", "space", "training", "evaluation", "hub", "synthetic", "interop"},
]


def package_imports() -> dict[Path, set[Path]]:
    """File of the package -> the files it imports, inside functions too; those of `cli` are its commands."""
    found = {path: set(imported_files(path)) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    found[PACKAGE / "cli.py"] |= {PACKAGE / f"{module.replace('.', '/')}.py" for module, _ in COMMANDS.values()}
    return found


def imported_files(path):
    """Files of the package that a file imports: inside functions and for annotations too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            names = [base / alias.name for alias in node.names]
            yield from (file for file in (name.with_suffix(".py") for name in [base, *names]) if file.is_file())


def room(path):
    return path.relative_to(PACKAGE).parts[0]


def level(path):
    if room(path) in ("cli.py", "__main__.py"):
        return len(LEVELS) + 1
    return next((number for number, rooms in enumerate(LEVELS, start=1) if room(path) in rooms), 0)


def test_no_import_goes_back_up():
    imports = package_imports()
    assert sum(map(len, imports.values())) > 300
    upward = [(a, b) for a, targets in imports.items() for b in targets if level(b) > level(a)]
    assert not upward


def test_no_imports_form_a_circle():
    TopologicalSorter(package_imports()).prepare()  # raises CycleError, which names the circle


def test_no_rooms_form_a_circle():
    """Rooms of one level too: each uses those below it, and none of these uses it."""
    rooms = {}
    for path, targets in package_imports().items():
        if level(path):
            rooms.setdefault(room(path), set()).update(room(target) for target in targets if level(target))
    assert rooms.keys() > set().union(*LEVELS)
    TopologicalSorter({name: targets - {name} for name, targets in rooms.items()}).prepare()


def test_every_room_has_a_level():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms <= set().union(*LEVELS)
