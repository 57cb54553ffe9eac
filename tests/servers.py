"""Server processes for tests: started on a free port, asked, killed, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "examples" / "objects" / "teapot.png"


@dataclass
class Live:
    """A server process."""

    process: subprocess.Popen[str]
    address: str
    data: Path
    model: str

    def ask(self, method: str, path: str, data: Any = None, kind: str = "application/json") -> tuple[int, Any]:
        """Returns status and body of an answer."""
        body = data if isinstance(data, bytes) or data is None else json.dumps(data).encode()
        request = urllib.request.Request(self.address + path, body, {"content-type": kind}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                status, found, told = answer.status, answer.read(), answer.headers["content-type"] or ""
        except urllib.error.HTTPError as e:
            status, found, told = e.code, e.read(), e.headers["content-type"] or ""
        return status, json.loads(found) if told.startswith("application/json") else found

    def metrics(self) -> str:
        """Returns its figures."""
        with urllib.request.urlopen(self.address.removesuffix("/api/v1") + "/metrics", timeout=60) as answer:
            return str(answer.read().decode())

    def upload(self, path: Path = PHOTO) -> str:
        """Uploads a photo; returns its id."""
        body = (
            b'--x\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
            + path.read_bytes()
            + b"\r\n--x--\r\n"
        )
        status, photo = self.ask("POST", "/photos", body, "multipart/form-data; boundary=x")
        assert status == 201, photo
        return str(photo["id"])

    def queue(self, expression: str, **more: Any) -> str:
        """Queues a job; returns its id."""
        status, job = self.ask("POST", "/jobs", {"expression": expression, **more})
        assert status == 202, job
        return str(job["id"])

    def ended(self, job: str, seconds: float = 180) -> dict[str, Any]:
        """Waits for a job's end; returns it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found: dict[str, Any] = self.ask("GET", f"/jobs/{job}?wait=20")[1]
            if found["status"] in ("done", "failed", "cancelled"):
                return found
        raise AssertionError(f"the job did not end in {seconds} seconds: {found}")

    def worker(self) -> int | None:
        """Returns the number of its worker process."""
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if b"pops.server.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        return None

    def kill_worker(self) -> None:
        """kill -9 of the worker."""
        worker = self.worker()
        assert worker is not None
        os.kill(worker, signal.SIGKILL)

    def stop(self) -> int:
        """Stops it gracefully; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=90)
        return self.process.returncode

    def kill(self) -> None:
        """kill -9 of the server, where it still runs."""
        self.process.kill()
        self.process.communicate()


def start(data: Path, model: Path, *options: str) -> Live:
    """Starts a server on a free port, and waits until it listens."""
    command = [sys.executable, "-m", "pops.cli.main", "serve", "--port", "0"]
    log = data.parent / f"{data.name}.log"
    with log.open("a") as errors:
        process = subprocess.Popen(
            [*command, "--data", str(data), "--model", str(model), "--examples", str(ROOT / "examples"), *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if "listens on" not in line:
        process.kill()
        process.communicate()
        raise AssertionError(log.read_text()[-2000:])
    return Live(process, line.split()[3], data, str(model))
