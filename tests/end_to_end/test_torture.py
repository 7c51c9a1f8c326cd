"""Killed at random moments, a chain of studies ends with what it would have had."""

import subprocess
import sys

import pytest
from conftest import REPOSITORY


@pytest.mark.slow
def test_a_chain_survives_random_kills():
    command = [sys.executable, "scripts/torture.py", "--kills=3", "--configs=configs/round2.py"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 kills: 0 of " in result.stdout
