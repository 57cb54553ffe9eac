"""Starts an installed `pops studio` and does what its page does: the page, every file it names, one picture.

python tools/try_studio.py POPS      # POPS: the command to try; needs no network but this machine's own

It runs in a folder in which `pops examples` has put its photos, and writes there.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import subprocess
import sys
import urllib.request
from pathlib import Path

PHOTOS = ("examples/objects/teapot.png", "examples/textures/tiger.png")
UP = 0x8914  # Linux: the request SIOCSIFFLAGS, which sets an interface's flags


def main() -> None:
    loopback()
    command = [sys.argv[1], "studio", "--no-browser", "--port", "0", "--data", "studio"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        told = re.match(r"the studio is at (\S+) ", process.stdout.readline())
        if told is None:
            sys.exit("the studio does not start")
        address = told[1].rstrip("/")
        page = ask(address + "/").decode()
        files = re.findall(r'(?:src|href)="([^"]+)"', page)
        if not files or any("//" in name for name in files):
            sys.exit(f"the page names {files or 'no files'}")
        size = sum(len(ask(f"{address}/{name.lstrip('./')}")) for name in files)
        photos = [f"photo:{uploaded(address, Path(path))}" for path in PHOTOS]
        job = json.loads(ask(f"{address}/api/v1/jobs", {"expression": f"texturing({', '.join(photos)})"}))["id"]
        while (found := json.loads(ask(f"{address}/api/v1/jobs/{job}?wait=60")))["status"] in ("queued", "running"):
            pass
        if found["status"] != "done":
            sys.exit(f"the studio's job is {found['status']}: {found['error']}")
        image = ask(f"{address}/api/v1/images/{found['images'][0]['id']}")
        told_of = f"{len(files)} files of {size / 1e6:.1f} MB, a picture of {len(image) / 1e3:.0f} kB"
        print(f"pops studio: its page, {told_of}")
    finally:
        process.terminate()
        process.wait(timeout=60)


def uploaded(address: str, path: Path) -> str:
    """Gives the studio a photo, and returns its id there."""
    head = f'--part\r\ncontent-disposition: form-data; name="file"; filename="{path.name}"\r\n\r\n'
    body = head.encode() + path.read_bytes() + b"\r\n--part--\r\n"
    return str(json.loads(ask(f"{address}/api/v1/photos", body, "multipart/form-data; boundary=part"))["id"])


def ask(address: str, data: object = None, kind: str = "application/json") -> bytes:
    """Returns what a GET answers, or a POST of data: bytes of some kind, or what becomes JSON."""
    body = data if data is None or isinstance(data, bytes) else json.dumps(data).encode()
    request = urllib.request.Request(address, body, {"content-type": kind} if body else {})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return bytes(answer.read())


def loopback() -> None:
    """Turns loopback on, where a machine without a network has it off (Linux, in a namespace of its own)."""
    with contextlib.suppress(ImportError, OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        import fcntl

        fcntl.ioctl(any_socket, UP, struct.pack("16sh14x", b"lo", 1 | 64))  # up and running


if __name__ == "__main__":
    main()
