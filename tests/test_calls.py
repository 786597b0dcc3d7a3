"""How the code is called: nobody has to count to six."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import rlaif_lab

PACKAGE = Path(rlaif_lab.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
VARIADIC = {"seed_for", "rng_for", "sample", "draw"}
"""Their last arguments are an identity of any length, not parameters to be told apart by position."""


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_from_the_sixth_on_arguments_have_names(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    counted = [call for call in calls if len(call.args) >= 6]
    assert [ast.unparse(call) for call in counted if ast.unparse(call.func).split(".")[-1] not in VARIADIC] == []


@pytest.mark.parametrize("option", ["--version", "--help"])
@pytest.mark.parametrize("command", sorted(PROJECT["scripts"]))
def test_every_command_answers(command: str, option: str) -> None:
    module, function = PROJECT["scripts"][command].split(":")
    assert callable(getattr(import_module(module), function))
    code = f"import sys; sys.argv = [{command!r}, {option!r}]; from {module} import {function}; {function}()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    if option == "--version":
        assert done.stdout == f"{command} {rlaif_lab.__version__}\n"
    else:
        assert command in done.stdout
