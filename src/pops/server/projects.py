"""Projects: the studio's documents, named, with a revision that two windows cannot both overwrite.

What a document says is the studio's own business, but for its format and the photos and images that it lists: these are
kept.
"""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pops.errors import ConfigError, PopsError, ensure
from pops.files import check_depth
from pops.server.references import ID
from pops.server.store import Store

FORMAT = 1  # of documents, which the studio writes (Project in studio/src/model/types.ts)
MAX_DOCUMENT = 2 * 2**20  # bytes of one, as JSON
MAX_DEPTH = 64  # of its lists and objects within one another
MAX_LISTED = 10_000  # photos or pins of one
MAX_NAME = 200  # characters
_PHOTO, _IMAGE = re.compile(ID), re.compile(rf"({ID})-[0-9]{{1,5}}")


class ProjectChanged(PopsError):
    """Another window wrote a later revision."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"the project was changed elsewhere (revision {revision}); load it again, or save a copy")
        self.revision = revision


class TooManyProjects(PopsError):
    """There are as many projects as may be."""


@dataclass(frozen=True)
class Project:
    """A project as it was saved last. thumbnail: the first of its pins that is there."""

    id: str
    name: str
    revision: int
    changed: float
    thumbnail: str | None
    document: Mapping[str, Any]


def check_document(document: Any) -> str:
    """Returns a document as it is stored; ConfigError where it is too large or a later studio's, or lists no ids."""
    ensure(isinstance(document, dict), "a project's document is a JSON object; send one", ConfigError)
    form = document.get("format", FORMAT)
    ensure(type(form) is int and form >= 1, f"document.format is a number from 1, got {form!r}; mend it", ConfigError)
    told = f"the project's document has the format {form}, this studio reads {FORMAT}; update pops"
    ensure(form <= FORMAT, told, ConfigError)
    try:
        check_depth(document, MAX_DEPTH)
        text = json.dumps(document, allow_nan=False)
    except ValueError as e:
        raise ConfigError(f"the document cannot be stored ({e}); leave that out") from None
    told = f"the document has {len(text)} bytes, and a project holds {MAX_DOCUMENT}; split it up"
    ensure(len(text) <= MAX_DOCUMENT, told, ConfigError)
    for name, pattern, kind in (("photos", _PHOTO, "photos"), ("pins", _IMAGE, "images")):
        listed = document.get(name, [])
        well = isinstance(listed, list) and len(listed) <= MAX_LISTED
        well = well and all(isinstance(one, str) and pattern.fullmatch(one) for one in listed)
        ensure(well, f"document.{name} is a list of ids of {kind}, at most {MAX_LISTED}; mend it", ConfigError)
    return text


def check_name(name: str) -> str:
    """Returns a project's name without spaces around it; ConfigError for one that cannot be shown."""
    name = name.strip()
    told = f"a project's name has 1 to {MAX_NAME} letters, all of which can be printed; choose another"
    ensure(0 < len(name) <= MAX_NAME and name.isprintable(), told, ConfigError)
    return name


class Projects:
    """The projects of one store. Threads may share it."""

    def __init__(self, store: Store, most: int) -> None:
        self._store, self._most = store, most

    def all(self) -> list[Project]:
        """Returns all projects without their documents, those that changed last first."""
        rows = self._store.rows("SELECT id, name, revision, changed, pins FROM projects ORDER BY changed DESC, id")
        return [self._project(row, {}) for row in rows]

    def get(self, project: str) -> Project | None:
        """Returns a project by its id."""
        rows = self._store.rows("SELECT * FROM projects WHERE id = ?", project)
        return self._project(rows[0], json.loads(rows[0]["document"])) if rows else None

    def _project(self, row: sqlite3.Row, document: Mapping[str, Any]) -> Project:
        query = "SELECT id FROM images WHERE id = ?"
        there = (pin for pin in json.loads(row["pins"]) if self._store.rows(query, pin))
        return Project(row["id"], row["name"], row["revision"], row["changed"], next(there, None), document)

    def add(self, name: str, document: Any, db: sqlite3.Connection | None = None) -> tuple[str, int]:
        """Stores a new project; returns its id and revision. db: where a change is under way."""
        name, text = check_name(name), check_document(document)
        if db is None:
            with self._store.change() as own:
                return self._added(own, name, document, text)
        return self._added(db, name, document, text)

    def _added(self, db: sqlite3.Connection, name: str, document: Mapping[str, Any], text: str) -> tuple[str, int]:
        if db.execute("SELECT count(*) FROM projects").fetchone()[0] >= self._most:
            raise TooManyProjects(f"the server keeps {self._most} projects; delete one that is no longer needed")
        project = secrets.token_hex(16)
        values = (project, name, time.time(), text, *_listed(document))
        db.execute("INSERT INTO projects VALUES (?, ?, 1, ?, ?, ?, ?)", values)
        return project, 1

    def save(self, project: str, name: str, document: Any, revision: int) -> int | None:
        """Stores a project that was loaded at a revision; returns the new one, None where there is no such project.

        ProjectChanged where that revision is not the newest.
        """
        name, text = check_name(name), check_document(document)
        with self._store.change() as db:
            row = db.execute("SELECT revision FROM projects WHERE id = ?", (project,)).fetchone()
            if row is None:
                return None
            if row["revision"] != revision:
                raise ProjectChanged(row["revision"])
            query = "UPDATE projects SET name = ?, revision = ?, changed = ?, document = ?, photos = ?, pins = ? "
            values = (name, revision + 1, time.time(), text, *_listed(document), project)
            db.execute(f"{query} WHERE id = ?", values)
        return revision + 1

    def delete(self, project: str) -> bool:
        """Forgets a project; returns whether there was one."""
        with self._store.change() as db:
            return bool(db.execute("DELETE FROM projects WHERE id = ?", (project,)).rowcount)


def _listed(document: Mapping[str, Any]) -> tuple[str, str]:
    return json.dumps(document.get("photos", [])), json.dumps(document.get("pins", []))
