"""The fast tests in environments of their own: oldest and newest allowed versions, every Python on the machine.

    python tests/version_matrix.py                    # all of it, as `make test-matrix` does
    python tests/version_matrix.py --versions oldest  # one row

"oldest" takes the lower bound in pyproject.toml of every library, "newest" what the registry has within the ranges.
The tools of the tests, and torch, whose builds for processors alone are few, are as in constraints.txt; what the
libraries bring along is what goes with them. Environments are kept in .venv-matrix/.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# What the oldest libraries need, though they do not say so: later releases refuse their NumPy or warn about them.
COMPANIONS = {"pandas": "2.2.3", "pyarrow": "21.0.0", "pyparsing": "3.1.4"}
PYTHONS = tuple(f"python3.{minor}" for minor in range(11, 16))


def runs(python: str) -> bool:
    """Whether this Python is there and starts: a name on the path may be a shim of a version that is not chosen."""
    return shutil.which(python) is not None and subprocess.run([python, "-V"], capture_output=True).returncode == 0


def bounds(requirements: Iterable[str]) -> dict[str, str]:
    """Package -> lower bound, of requirements that name one."""
    found = (re.match(r"([\w-]+)>=([\d.]+)", requirement) for requirement in requirements)
    return {match[1]: match[2] for match in found if match}


def libraries() -> dict[str, str]:
    """Package -> oldest version that is allowed, of all that the package and its extras import."""
    extras = [line for extra, lines in EXTRAS.items() if extra != "test" for line in lines]
    return bounds([*PROJECT["dependencies"], *extras])


def constraints(versions: str) -> str:
    """Text of the constraints of one environment."""
    tools = {"torch", *bounds(EXTRAS["test"])}
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in pinned if line.split("==")[0] in tools]
    oldest = [f"{name}=={v}" for name, v in (libraries() | COMPANIONS).items() if name not in tools]
    return "\n".join([*kept, *(oldest if versions == "oldest" else [])]) + "\n"


def make_environment(python: str, versions: str) -> Path:
    """Python of an environment with these versions, made or brought up to date."""
    folder = ROOT / ".venv-matrix" / f"{python}-{versions}"
    executable = folder / "bin" / "python"
    if not executable.is_file():
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
    file = folder / "constraints.txt"
    file.write_text(constraints(versions), encoding="utf-8")
    install = [str(executable), "-m", "pip", "install", "--quiet", "--no-compile", "--upgrade", "-c", str(file)]
    install += ["-e", f"{ROOT}[test]"]
    subprocess.run(install, check=True, cwd=ROOT)
    return executable


# Prints Python packages with their versions, but for those of extras that the tests do without.
VERSIONS = """
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
for name in sys.argv[1:]:
    with suppress(PackageNotFoundError):
        print(name, version(name))
"""


def installed(executable: Path) -> str:
    """The libraries with their versions, and Python's."""
    command = [str(executable), "-c", VERSIONS, *sorted(libraries())]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return ", ".join([executable.parents[1].name.split("-")[0], *shown.splitlines()])


def main() -> int:
    """Run the matrix; 0 when every environment passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", nargs="+", choices=("oldest", "newest"), default=["oldest", "newest"])
    parser.add_argument("--jobs", default="2", metavar="N", help="test processes (default: 2)")
    args = parser.parse_args()
    pythons = [python for python in PYTHONS if runs(python)]
    results = []
    for python in pythons:
        for versions in args.versions:
            executable = make_environment(python, versions)
            title = f"{versions}: {installed(executable)}"
            print(f"== {title}", flush=True)
            command = [str(executable), "-m", "pytest", "-q", "-n", args.jobs, "-m", "not slow"]
            done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
            results.append((title, done.returncode))
    absent = [python for python in PYTHONS if python not in pythons]
    print("\n".join(f"{'passed' if not code else 'FAILED':8}{title}" for title, code in results))
    print(f"not on this machine: {', '.join(absent)}")
    return int(any(code for _, code in results))


if __name__ == "__main__":
    sys.exit(main())
