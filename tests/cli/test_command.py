"""The command that an installation has."""

import importlib.metadata
import subprocess
import sys

import pytest

from budgetflow.cli import main as command


def run(*arguments):
    program = "import sys; from budgetflow.cli.main import main; sys.argv[0] = 'budgetflow'; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=300
    )


def test_the_command_is_what_the_package_declares(pytestconfig):
    import tomllib

    project = tomllib.loads((pytestconfig.rootpath / "pyproject.toml").read_text())["project"]
    target = project["scripts"]["budgetflow"]
    entry = importlib.metadata.EntryPoint("budgetflow", target, "console_scripts")
    assert entry.load() is command.main


def test_without_a_word_it_lists_them():
    result = run()
    assert result.returncode == 0
    for name in command.COMMANDS:
        assert f"\n  {name}" in result.stdout


@pytest.mark.parametrize("name", command.COMMANDS)
def test_each_word_is_the_module_of_that_name(name):
    result = run(name, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"python -m budgetflow.{name} --" in result.stdout


def test_a_wrong_word_is_refused_with_the_nearest():
    result = run("lunch")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "budgetflow: no command 'lunch'; did you mean 'launch'?\n"
