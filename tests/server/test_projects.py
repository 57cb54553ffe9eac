"""Projects: revisions, what they keep, and their files; none of which a kill or a hostile file damages."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import stat
import struct
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pops.errors import ConfigError
from pops.server.packing import pack, unpack
from pops.server.projects import MAX_DOCUMENT, Projects, TooManyProjects
from pops.server.store import Store, StoredPhoto
from servers import PHOTO, Live

A, B, C = "a" * 32, "b" * 32, "c" * 32


def sent(server: Live, data: bytes) -> tuple[int, dict[str, Any]]:
    """Sends a project's file."""
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="f.pops"\r\n\r\n'
    return server.ask("POST", "/projects/file", head + data + b"\r\n--x--\r\n", "multipart/form-data; boundary=x")


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Returns a zip of these entries."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return out.getvalue()


def about(**more: Any) -> tuple[str, bytes]:
    """Returns a project.json that is in order, but for what is given."""
    told = {"format": "pops project", "version": 1, "name": "n", "document": {}, **more}
    return "project.json", json.dumps(told).encode()


def image(store: Store, job: str, size: int = 100) -> None:
    store.image_path(job, 0).parent.mkdir(parents=True, exist_ok=True)
    store.image_path(job, 0).write_bytes(b"x" * size)
    store.add_image(job, 0, 8, 8, size)
    store.start([job])
    store.end(job, "done")


def test_two_windows_cannot_overwrite_one_another(client: Callable[..., TestClient]) -> None:
    one = client()
    made = one.post("/api/v1/projects", json={"name": " Tee ", "document": {"nodes": [1]}})
    assert made.status_code == 201 and made.json()["revision"] == 1
    path = f"/api/v1/projects/{made.json()['id']}"
    assert one.get(path).json() | {"changed": 0} == {
        "id": made.json()["id"], "name": "Tee", "revision": 1, "changed": 0, "thumbnail": None,
        "document": {"nodes": [1]},
    }  # fmt: skip
    first = one.put(path, json={"name": "Tee", "document": {"by": "one"}, "revision": 1})
    assert first.status_code == 200 and first.json()["revision"] == 2
    other = one.put(path, json={"name": "Tee", "document": {"by": "other"}, "revision": 1})
    assert other.status_code == 409 and other.json()["error"]["revision"] == 2
    assert one.get(path).json()["document"] == {"by": "one"}
    assert [row["revision"] for row in one.get("/api/v1/projects").json()["projects"]] == [2]
    assert one.delete(path).status_code == 204 and one.delete(path).status_code == 404
    assert one.put(path, json={"name": "x", "document": {}, "revision": 2}).status_code == 404
    assert one.get(path).status_code == 404 and one.get("/api/v1/projects").json() == {"projects": []}


def test_documents_have_a_size_a_depth_and_lists_of_ids(client: Callable[..., TestClient]) -> None:
    one = client()
    deep: Any = {}
    for _ in range(100):
        deep = {"x": deep}
    cases: list[tuple[Any, int]] = [
        ({"name": "x", "document": {"text": "a" * (MAX_DOCUMENT + 1)}}, 422),
        ({"name": "x", "document": {"text": "a" * (2 * MAX_DOCUMENT + 1)}}, 413),
        ({"name": "x", "document": deep}, 422),
        ({"name": "x", "document": []}, 422),
        ({"name": "x", "document": {"photos": ["../../etc/passwd"]}}, 422),
        ({"name": "x", "document": {"photos": A}}, 422),
        ({"name": "x", "document": {"pins": [A]}}, 422),
        ({"name": "x", "document": {"pins": [1]}}, 422),
        ({"name": " ", "document": {}}, 422),
        ({"name": "a\nb", "document": {}}, 422),
        ({"name": "x" * 201, "document": {}}, 422),
        ({"name": "\ud800", "document": {}}, 422),
    ]
    for body, status in cases:
        data = json.dumps(body)
        answer = one.post("/api/v1/projects", content=data, headers={"content-type": "application/json"})
        assert answer.status_code == status, (data[:80], answer.text)
        assert "\n" not in answer.json()["error"]["message"]
    infinite = b'{"name": "x", "document": {"x": NaN}}'
    answer = one.post("/api/v1/projects", content=infinite, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert one.get("/api/v1/projects").json() == {"projects": []}


def test_what_projects_use_survives_tidying(tmp_path: Path) -> None:
    store = Store(tmp_path)
    projects = Projects(store, 2)
    for photo in (A, B):
        store.photo_path(photo).parent.mkdir(parents=True, exist_ok=True)
        store.photo_path(photo).write_bytes(b"x" * 100)
        store.add_photo(StoredPhoto(photo, 8, 8), 100)
    ids = [store.add_job("tiny", {"expression": "_"}, [], 10, quick=n > 0)[0].id for n in range(3)]
    for job in ids:
        image(store, job)
    project, _ = projects.add("p", {"photos": [A, C], "pins": [f"{ids[1]}-0", f"{C}-0"]})
    assert store.tidy(history=1, disk=1) == 2
    assert [job.id for job in store.jobs(0, 9)] == [ids[1]] and store.image_path(ids[1], 0).is_file()
    assert store.photo(A) is not None and store.photo_path(A).is_file() and store.photo(B) is None
    assert projects.all()[0].thumbnail == f"{ids[1]}-0"
    projects.add("q", {})
    with pytest.raises(TooManyProjects):
        projects.add("r", {})
    assert projects.delete(project)
    store.tidy(history=1, disk=1)
    assert store.jobs(0, 9) == [] and store.photo(A) is None


def test_one_project_has_one_file(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.photo_path(A).parent.mkdir(parents=True)
    store.photo_path(A).write_bytes(b"photo")
    store.add_photo(StoredPhoto(A, 8, 8, "cup.png"), 5)
    projects = Projects(store, 9)
    job = store.add_job("tiny", {"expression": "_"}, [], 10)[0].id
    image(store, job)
    id_, _ = projects.add("My cup", {"photos": [A, C, A], "pins": [f"{job}-0"], "x": "ü"})
    project = projects.get(id_)
    assert project is not None
    for name in ("one", "two"):
        pack(store, project, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with zipfile.ZipFile(tmp_path / "one") as archive:
        assert archive.namelist() == ["project.json", f"photos/{A}", f"images/{job}-0.png"]
        assert json.loads(archive.read("project.json"))["names"] == {A: "cup.png"}


def bombs() -> list[tuple[str, bytes, str]]:
    """Files that are damaged, hostile, or of a later pops: a name, the bytes, and what is said."""
    good = zipped(about())
    link = zipfile.ZipInfo(f"photos/{A}")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    lying = bytearray(zipped(about(), (f"photos/{A}", b"\0" * 10**6)))
    where = lying.rindex(f"photos/{A}".encode()) - 46 + 24  # the size in the central directory
    lying[where : where + 4] = struct.pack("<I", 10)
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zipped(about(), (f"photos/{A}", b"x"), (f"photos/{A}", b"y"))
    broken = bytearray(zipped(about(), (f"photos/{A}", b"x" * 1000)))
    broken[broken.index(b"photos/") + 39] ^= 0xFF
    return [
        ("empty", b"", "damaged, or no project"),
        ("no zip", b"PK\x03\x04" + b"x" * 500, "damaged, or no project"),
        ("a PNG", PHOTO.read_bytes(), "damaged, or no project"),
        ("cut off", good[: len(good) // 2], "damaged, or no project"),
        ("end alone", good[-22:], "damaged, or no project"),
        ("no document", zipped(("readme.txt", b"x")), "no project.json"),
        ("other format", zipped(("project.json", b'{"format": "x", "version": 1}')), "no project of pops"),
        ("no object", zipped(("project.json", b"[1]")), "no project of pops"),
        ("no JSON", zipped(("project.json", b"{")), "project.json is damaged"),
        ("deep JSON", zipped(("project.json", b'{"a":' * 5000)), "project.json is damaged"),
        ("newer", zipped(about(version=2, other=1), ("sounds/x", b"")), "update pops"),
        ("document", zipped(about(document=[])), "JSON object"),
        ("newer document", zipped(about(document={"format": 2})), "format 2, this studio reads 1; update pops"),
        ("odd document", zipped(about(document={"format": True})), "document.format is a number"),
        ("lists", zipped(about(document={"pins": ["../x"]})), "list of ids"),
        ("name", zipped(about(name="a\nb")), "project's name"),
        ("path", zipped(about(), ("../../x", b"x")), "no part of a project"),
        ("absolute", zipped(about(), ("/etc/passwd", b"x")), "no part of a project"),
        ("inside", zipped(about(), (f"photos/../{A}", b"x")), "no part of a project"),
        ("windows", zipped(about(), ("photos\\..\\x", b"x")), "no part of a project"),
        ("folder", zipped(about(), ("photos/", b"")), "no part of a project"),
        ("link", zipped(about(), (link, b"/etc/passwd")), "no part of a project"),
        ("bzip2", zipped(about(), (f"photos/{A}", b"x"), how=zipfile.ZIP_BZIP2), "no part of a project"),
        ("twice", twice, "an entry twice"),
        ("digest", zipped(about(), (f"photos/{A}", b"other")), "its digest is another"),
        ("bomb", zipped(about(), (f"photos/{A}", b"\0" * 40 * 2**20)), "unpacks to"),
        ("lying bomb", bytes(lying), "damaged, or no project"),
        ("broken data", bytes(broken), "save it again"),
        ("large", zipped(("project.json", b" " * (5 * 2**20))), "is larger than"),
        ("many", zipped(about(), *[(f"photos/{n:032x}", b"") for n in range(20_001)]), "entries"),
    ]  # fmt: skip


def test_bad_files_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name, data, told in bombs():
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(ConfigError, match=told) as error:
            unpack(tmp_path / "file", tmp_path / "out", 32 * 2**20)
        assert "\n" not in str(error.value) and "/tmp" not in str(error.value), name
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) < 4 * 2**20
    assert {path.name for path in tmp_path.iterdir()} == {"file", "out"}


def test_bad_files_change_nothing(live: Live) -> None:
    def state() -> tuple[Any, ...]:
        files = sorted(str(p) for f in ("photos", "images") for p in (live.data / f).rglob("*"))
        return live.ask("GET", "/projects"), len(live.ask("GET", "/jobs?limit=200")[1]["jobs"]), files

    live.upload()
    before = state()
    photo = PHOTO.read_bytes()
    digest = live.upload()
    job = f"images/{B}-0.png"
    cases = [
        *bombs()[::6],
        ("no photo", zipped(about(), ("photos/" + _digest(b"no photo"), b"no photo")), "in the file:"),
        ("no recipe", zipped(about(), (f"photos/{digest}", photo), (job, photo)), "carries no recipe"),
        ("no image", zipped(about(), (f"photos/{digest}", photo), (job, b"x" * 9)), "in the file:"),
    ]
    for name, data, told in cases:
        status, answer = sent(live, data)
        assert status == 422 and told in answer["error"]["message"], (name, answer)
        assert "\n" not in answer["error"]["message"] and str(live.data) not in answer["error"]["message"]
    assert state() == before and list((live.data / "incoming").iterdir()) == []


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def test_a_file_opened_elsewhere_gives_the_same_bytes(live: Live, serving: Callable[..., Live]) -> None:
    photo, expression = live.upload(), "texturing(photo:{}, _)"
    done = live.ended(live.queue(expression.format(photo), seeds=[5, 6]))
    pins = [image["id"] for image in done["images"]]
    document = {"photos": [photo], "pins": pins, "layout": {"ü": [1, 2.5]}}
    _, made = live.ask("POST", "/projects", {"name": "Tasse / eins", "document": document})
    status, file = live.ask("GET", f"/projects/{made['id']}/file")
    assert status == 200 and file == live.ask("GET", f"/projects/{made['id']}/file")[1]

    other = serving()
    status, there = sent(other, file)
    assert status == 201, there
    found = other.ask("GET", f"/projects/{there['id']}")[1]
    assert found["name"] == "Tasse / eins" and found["document"] == document and found["thumbnail"] == pins[0]
    assert other.ask("GET", f"/projects/{there['id']}/file")[1] == file  # and back
    for pin in pins:
        assert other.ask("GET", f"/images/{pin}")[1] == live.ask("GET", f"/images/{pin}")[1]
    assert other.ask("GET", "/history")[1]["jobs"] == []  # nobody asked for them here
    again = other.ended(other.queue(expression.format(photo), seeds=[5, 6]))
    for one, pin in zip(again["images"], pins, strict=True):
        assert other.ask("GET", f"/images/{one['id']}")[1] == live.ask("GET", f"/images/{pin}")[1]
    assert sent(other, file)[0] == 201  # a copy; photos and images are there

    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    # another picture under an id that is there
    parts[f"images/{pins[0]}.png"] = parts[f"images/{pins[1]}.png"]
    status, answer = sent(other, zipped(*parts.items()))
    assert status == 422 and "not the one of this id" in answer["error"]["message"]


def test_a_killed_server_loses_no_project(serving: Callable[..., Live]) -> None:
    server = serving()
    _, made = server.ask("POST", "/projects", {"name": "p", "document": {"n": 0}})
    path, acknowledged, tried = f"/projects/{made['id']}", [1], [1]

    def save() -> None:
        while True:
            tried.append(acknowledged[-1] + 1)
            body = {"name": "p", "document": {"n": tried[-1], "x": "y" * 200_000}, "revision": acknowledged[-1]}
            try:
                status, answer = server.ask("PUT", path, body)
            except (OSError, http.client.HTTPException):  # before the answer, or in the middle of it
                return
            assert status == 200, answer
            acknowledged.append(answer["revision"])

    for round_ in range(2):
        writer = threading.Thread(target=save)
        writer.start()
        while len(acknowledged) < 10 * (1 + round_):
            assert writer.is_alive()
            time.sleep(0.01)
        server.kill()  # in the middle of a write, most likely
        writer.join()
        server = serving()
        found = server.ask("GET", path)[1]
        assert found["revision"] in (acknowledged[-1], tried[-1])
        assert found["document"]["n"] in (0, found["revision"])
        acknowledged.append(found["revision"])
