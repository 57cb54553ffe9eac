"""What no command catches is one line: Ctrl-C while modules are imported, a stdout that is full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

APP = "from pops.cli.main import app; app()"
# A shell starts what it sends to the background with Ctrl-C ignored.
HEARD = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "


def test_ctrl_c_outside_a_command_is_one_line() -> None:
    code = HEARD + "import pops.cli; signal.raise_signal(signal.SIGINT)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "pops: stopped; no partial files were left\n" and done.returncode == -signal.SIGINT


@pytest.mark.parametrize("milliseconds", [0, 50, 150, 400])
def test_ctrl_c_while_modules_are_imported_is_one_line(milliseconds: int) -> None:
    code = f"{HEARD}import pops.cli; print('begun', flush=True); {APP}"
    command = [sys.executable, "-c", code, "models", "list"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    time.sleep(milliseconds / 1000)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert "Traceback" not in told and told.count("\n") <= 1, told


def test_ctrl_c_in_a_finaliser_is_not_lost() -> None:
    finaliser = "type('Finaliser', (), {'__del__': lambda self: signal.raise_signal(signal.SIGINT)})()"
    code = f"{HEARD}import pops.cli, time; {finaliser}; time.sleep(30)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=20)
    assert done.stderr == "pops: stopped; no partial files were left\n" and done.returncode == -signal.SIGINT


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
def test_a_full_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-c", APP, "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "No space left on device" in done.stderr
