"""A project as one file, NAME.pops: a zip of the document, its photos and its pinned images.

The same project has the same bytes. What is read may be anyone's: every entry is known by its name and its size before
it is unpacked, and nothing is kept unless all of it is right.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pops.errors import ConfigError, ensure
from pops.files import parse_json, settle
from pops.server.projects import MAX_DOCUMENT, Project, check_document, check_name
from pops.server.references import ID
from pops.server.store import Store
from pops.version import __version__

FORMAT, VERSION = "pops project", 1
ABOUT = "project.json"
MAX_ENTRIES = 20_001
_ENTRY = re.compile(
    rf"(?P<about>project\.json)|photos/(?P<photo>{ID})|images/(?P<job>{ID})-(?P<number>[0-9]{{1,5}})\.png"
)
_CHUNK = 2**20
_WHEN = (1980, 1, 1, 0, 0, 0)  # of every entry: the zip format's first


@dataclass
class Unpacked:
    """What a file holds, in a folder of its own, checked but for what only decoding tells."""

    name: str
    document: Mapping[str, Any]
    photos: dict[str, tuple[Path, str]] = field(default_factory=dict)  # id -> its file, and its name
    images: dict[tuple[str, int], Path] = field(default_factory=dict)  # job and number -> its file


def pack(store: Store, project: Project, to: Path) -> None:
    """Writes a project's file, with those of its photos and pinned images that are there."""
    names = store.names(project.document.get("photos", []))
    about = {
        "format": FORMAT,
        "version": VERSION,
        "name": project.name,
        "names": names,
        "document": project.document,
        "made with": {"pops": __version__},
    }
    photos = sorted({f"photos/{one}": store.photo_path(one) for one in project.document.get("photos", [])}.items())
    pins = {pin: store.image(pin) for pin in project.document.get("pins", [])}
    images = sorted((f"images/{p}.png", store.image_path(f[0], f[1].number)) for p, f in pins.items() if f is not None)
    with zipfile.ZipFile(to, "w") as archive:
        text = json.dumps(about, indent=1, sort_keys=True).encode()
        archive.writestr(_entry(ABOUT, zipfile.ZIP_DEFLATED), text)
        for name, path in [*photos, *images]:
            if path.is_file():
                with path.open("rb") as file, archive.open(_entry(name), "w", force_zip64=False) as out:
                    shutil.copyfileobj(file, out, _CHUNK)


def _entry(name: str, how: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _WHEN)
    info.compress_type, info.create_system, info.external_attr = how, 3, 0o644 << 16
    return info


def unpack(path: Path, folder: Path, most: int) -> Unpacked:
    """Unpacks a file of anyone's into a folder, at most so many bytes. ConfigError, in one line, for what is wrong."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _unpacked(archive, folder, most)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError, OverflowError) as e:
        raise ConfigError(f"the file is damaged, or no project of pops ({_why(e)}); save it again") from None
    except (OSError, ValueError, zlib.error) as e:  # sizes that lie outside the file, and what is no deflated data
        raise ConfigError(f"the file cannot be unpacked ({_why(e)}); save it again") from None


def _why(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:80] or type(error).__name__


def _unpacked(archive: zipfile.ZipFile, folder: Path, most: int) -> Unpacked:
    # 1) What the file says of itself.
    entries = archive.infolist()
    told = f"the file holds {len(entries)} entries, and a project at most {MAX_ENTRIES}; save it again"
    ensure(len(entries) <= MAX_ENTRIES, told, ConfigError)
    named = {entry.filename: entry for entry in entries}
    ensure(ABOUT in named, "the file is no project of pops: it has no project.json; choose another", ConfigError)
    about = _about(archive, named[ABOUT])

    # 2) Every entry is one that a project has, once, and the sum of their sizes is known.
    ensure(len(named) == len(entries), "the file names an entry twice; save it again", ConfigError)
    for entry in entries:
        kind = entry.external_attr >> 16
        plain = not kind or stat.S_ISREG(kind) or stat.S_IFMT(kind) == 0
        packed = entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not entry.flag_bits & 1
        told = f"the file holds {entry.filename[:60]!r}, which is no part of a project; save it again"
        ensure(_ENTRY.fullmatch(entry.filename) is not None and plain and packed, told, ConfigError)
    whole = sum(entry.file_size for entry in entries)
    told = f"the file unpacks to {whole} bytes, and the server takes {most}; leave photos or pins out"
    ensure(whole <= most, told, ConfigError)

    # 3) Photos have the digest that they are named by; images are pinned, and looked at by who asked.
    found = Unpacked(check_name(str(about.get("name", ""))), about["document"])
    names = about.get("names") if isinstance(about.get("names"), dict) else {}
    for number, entry in enumerate(entries):
        match = _ENTRY.fullmatch(entry.filename)
        assert match is not None
        if match["about"]:
            continue
        place = folder / str(number)
        digest = _extract(archive, entry, place)
        if match["photo"]:
            told = f"the photo {match['photo']} in the file is damaged: its digest is another; save it again"
            ensure(digest == match["photo"], told, ConfigError)
            found.photos[match["photo"]] = place, str((names or {}).get(match["photo"], ""))
        else:
            found.images[match["job"], int(match["number"])] = place
    return found


def _about(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> dict[str, Any]:
    """Returns what project.json says; ConfigError for another format, or a later version of it."""
    told = f"the file's project.json is larger than {2 * MAX_DOCUMENT} bytes; save it again"
    ensure(entry.file_size <= 2 * MAX_DOCUMENT and not entry.flag_bits & 1, told, ConfigError)
    with archive.open(entry) as file:
        data = file.read(2 * MAX_DOCUMENT + 1)
    try:
        about = parse_json(data)
    except ValueError as e:
        raise ConfigError(f"the file's project.json is damaged ({e}); save it again") from None
    known = isinstance(about, dict) and about.get("format") == FORMAT and type(about.get("version")) is int
    ensure(known, "the file is no project of pops; choose another", ConfigError)
    told = f"the project has the format {about['version']}, this pops reads {VERSION}; update pops"
    ensure(about["version"] <= VERSION, told, ConfigError)
    check_document(about.get("document"))
    return dict(about)


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, place: Path) -> str:
    """Writes one entry, no longer than it says; returns the beginning of its sha256, which is a photo's id."""
    digest, left = hashlib.sha256(), entry.file_size
    with archive.open(entry) as file, place.open("wb") as out:
        while chunk := file.read(_CHUNK):
            left -= len(chunk)
            ensure(left >= 0, f"{entry.filename} in the file is larger than it says; save it again", ConfigError)
            digest.update(chunk)
            out.write(chunk)
    ensure(left == 0, f"{entry.filename} in the file is cut off; save it again", ConfigError)
    settle(place)
    return digest.hexdigest()[:32]
