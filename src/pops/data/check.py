"""Checks a folder of examples: its metadata, every picture, copies among them, and what its splits share.

Faults are what training must not see; notes are worth a look and may be meant.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pops.data.folder import Example, Folder
from pops.data.near import SIDE, TURNS, near_pairs
from pops.data.splits import SPLITS
from pops.errors import PhotoError, ensure, suggest
from pops.files import shown
from pops.images import PHOTO_SUFFIXES, load_photo
from pops.images.opening import opened

if TYPE_CHECKING:
    from pops.progress import OnProgress

TINY = 32  # pixels: a picture with a shorter side is a fault
LONG = 4.0  # times as long as wide, or more: worth a note
FEW = 40  # examples; fewer teach little
COMPARED = 50_000  # pictures that are all compared with one another; of more, the held-out ones with all
READERS = 4  # threads
AHEAD = 64  # pictures that are read before the first is looked at
KINDS = {
    "role": "roles that are unknown or make no operator",
    "row": "rows that cannot be read",
    "path": "names that are no picture of the folder",
    "text": "texts that are none",
    "split": "unknown splits",
    "id": "rows that are there twice, by id",
    "empty": "rows without an operand",
    "target": "rows without a result",
    "missing": "pictures that are missing",
    "broken": "pictures that cannot be read",
    "tiny": "pictures that are too small",
    "long": "texts that are too long",
    "duplicate": "rows that are there twice, by content",
    "leak": "held-out rows that training sees",
    "copy": "files with the same bytes",
    "near": "pictures that look the same",
    "turned": "pictures that lie on their side",
    "narrow": "pictures that are very long",
    "shared": "held-out pictures that training sees as an operand",
    "unused": "pictures that no row names",
    "few": "too little to learn from",
}


@dataclass(frozen=True)
class Finding:
    """Something found. where: row or file; pictures: what it is about; fault: whether training must not see it."""

    kind: str
    where: str
    what: str
    pictures: tuple[Path, ...] = ()
    fault: bool = True

    def __str__(self) -> str:
        return f"{self.where} {self.what}" if self.where else self.what


@dataclass
class Checked:
    """What a check found. pictures: files that were read; sizes: of their pixels, how many of each."""

    folder: Folder
    findings: list[Finding] = field(default_factory=list)
    pictures: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    @property
    def faults(self) -> list[Finding]:
        return [f for f in self.findings if f.fault]

    @property
    def notes(self) -> list[Finding]:
        return [f for f in self.findings if not f.fault]

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings by kind, in the order of KINDS."""
        counted = Counter(f.kind for f in self.findings)
        return {kind: counted[kind] for kind in KINDS if counted[kind]}


@dataclass(frozen=True)
class _Look:
    """A picture that was read: its bytes' digest, its size, its turn by EXIF, a small copy; or what is wrong."""

    digest: str = ""
    size: tuple[int, int] = (0, 0)
    turn: int = 1
    small: bytes = b""
    problem: tuple[str, str] | None = None  # kind, what


def check_folder(
    path: str | Path,
    *,
    too_long: Callable[[Sequence[str]], list[bool]],
    roles: Sequence[str] | None = None,
    on_progress: OnProgress | None = None,
) -> Checked:
    """Reads all of a folder and returns what is wrong with it.

    too_long: says of texts whether they are too long for the encoder (Space.too_long); roles: the names that the
    operator's roles must have. Raises ConfigError if there is no folder with metadata at all.
    """
    folder = Folder.read(path, strict=False)
    checked = Checked(folder)
    checked.findings += [Finding(fault.kind, fault.where, fault.what) for fault in folder.faults]
    _check_roles(checked, roles)
    examples = list(folder.rows())
    looks = _look_at(examples, checked, on_progress)
    _check_texts(checked, examples, too_long)
    _Contents(checked, examples, looks).check()
    _check_rest(checked, looks)
    return checked


def _check_roles(checked: Checked, roles: Sequence[str] | None) -> None:
    if roles is None:
        return
    have = [role.name for role in checked.folder.roles]
    where = shown(checked.folder.metadata[0])
    for name in have:
        if name not in roles:
            told = f"has a role {shown(name)!r}{suggest(name, roles)}; the operator's are {', '.join(roles)}"
            checked.findings.append(Finding("role", where, told))
    for name in roles:
        if name not in have:
            checked.findings.append(Finding("role", where, f"has no column for the role {shown(name)!r}"))


# --- every picture alone


def _paths(example: Example) -> Iterator[tuple[str, Path]]:
    """Yields the pictures of an example with their roles; the result's is "target"."""
    for role, path in example.images.items():
        if path is not None:
            yield role, path
    if example.target is not None:
        yield "target", example.target


def _look_at(examples: Sequence[Example], checked: Checked, on_progress: OnProgress | None) -> dict[Path, _Look]:
    """Reads every picture once, and adds what is wrong with it to the findings."""
    first: dict[Path, str] = {}
    for example in examples:
        for role, path in _paths(example):
            first.setdefault(path, f"{checked.folder.where(example)} ({role})")
    paths, looks = list(first), dict[Path, _Look]()
    with ThreadPoolExecutor(READERS, thread_name_prefix="pops-check") as readers:
        try:
            for start in range(0, len(paths), AHEAD):
                part = paths[start : start + AHEAD]
                looks |= dict(zip(part, readers.map(_look, part), strict=True))
                if on_progress:
                    on_progress(start + len(part), len(paths), "reading pictures")
        except BaseException:
            readers.shutdown(cancel_futures=True)
            raise
    for path, look in looks.items():
        where, name = first[path], shown(path.relative_to(checked.folder.path))
        if look.problem:
            kind, what = look.problem
            checked.findings.append(Finding(kind, where, f"{name} {what}", (path,)))
            continue
        checked.pictures += 1
        checked.sizes[look.size] += 1
        width, height = look.size
        if min(look.size) < TINY:
            told = f"{name} has {width} x {height} pixels; use one of {TINY} or more a side"
            checked.findings.append(Finding("tiny", where, told, (path,)))
        elif max(look.size) >= LONG * min(look.size):
            told = f"{name} has {width} x {height} pixels, and becomes a square: crop it"
            checked.findings.append(Finding("narrow", where, told, (path,), fault=False))
        if look.turn != 1:
            told = f"{name} is turned by its EXIF alone, which other programs may not see; save it as it should stand"
            checked.findings.append(Finding("turned", where, told, (path,), fault=False))
    return looks


def _look(path: Path) -> _Look:
    try:
        if not path.exists():
            return _Look(problem=("missing", "does not exist"))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with opened(path) as (photo, beside):
            size, turn = photo.size, beside.turn
        return _Look(digest, size, turn or 1, load_photo(path, size=SIDE).tobytes())
    except PhotoError as e:
        return _Look(problem=("broken", str(e).removeprefix(shown(path)).lstrip()))
    except OSError as e:
        return _Look(problem=("broken", f"cannot be read ({e.strerror or e})"))


def _check_texts(
    checked: Checked, examples: Sequence[Example], too_long: Callable[[Sequence[str]], list[bool]]
) -> None:
    first: dict[str, tuple[str, str]] = {}
    for example in examples:
        for role, text in (*example.texts.items(), ("caption", example.caption)):
            if text:
                first.setdefault(text, (checked.folder.where(example), role))
    if first:
        for (text, (where, role)), cut in zip(first.items(), too_long(list(first)), strict=True):
            if cut:
                told = f"has a {role} that is too long for the text encoder: {shown(text, 60)!r}"
                checked.findings.append(Finding("long", where, told))


# --- pictures and rows against one another


class _Contents:
    """The contents of all pictures, each once: which files have it, and which are near which."""

    def __init__(self, checked: Checked, examples: Sequence[Example], looks: Mapping[Path, _Look]) -> None:
        self.checked, self.examples = checked, examples
        self.looks = {path: look for path, look in looks.items() if look.digest}
        self.files: dict[str, list[Path]] = defaultdict(list)
        for path, look in self.looks.items():
            self.files[look.digest].append(path)
        self.names = list(self.files)
        self.alike = {name: name for name in self.names}  # content -> the first content that it is near

    def check(self) -> None:
        """Adds findings about copies, near copies, turned copies, rows twice, leaks and what splits share."""
        for paths in self.files.values():
            if len(paths) > 1:
                told = f"has the same bytes as {self._name(paths[0])}"
                more = f", and so have {len(paths) - 2} more files" if len(paths) > 2 else ""
                self._note("copy", self._name(paths[1]), told + more, *paths[:2])
        self._find_near()
        self._check_rows()

    def _find_near(self) -> None:
        import torch

        if not self.names:
            return
        small = b"".join(self.looks[self.files[name][0]].small for name in self.names)
        copies = torch.frombuffer(bytearray(small), dtype=torch.uint8).reshape(-1, SIDE, SIDE, 3)
        all_ = len(self.names) <= COMPARED
        held = {p for e in self.examples if e.split != SPLITS[0] for _, p in _paths(e)}
        few = torch.tensor([i for i, n in enumerate(self.names) if held.intersection(self.files[n])], dtype=torch.int64)
        beside = self._in_one_row()
        for i, j in near_pairs(copies, first=None if all_ else few):
            a, b = self.names[i], self.names[j]
            self.alike[b] = self.alike[a]  # pairs are in order, so this is the first of all that are near
            if frozenset((a, b)) not in beside:
                first, second = self.files[a][0], self.files[b][0]
                self._note("near", self._name(second), f"looks the same as {self._name(first)}", first, second)
        for turn in TURNS if all_ else ():
            for i, j in near_pairs(copies, turn):
                a, b = self.names[i], self.names[j]
                pair = frozenset((a, b))
                if i > j or self.alike[a] == self.alike[b] or pair in beside:  # of i > j another turn tells
                    continue
                first, second = self.files[a][0], self.files[b][0]
                told = f"looks the same as {self._name(first)} when it is turned by {turn} degrees"
                self._note("turned", self._name(second), told, first, second)

    def _in_one_row(self) -> set[frozenset[str]]:
        """Returns the pairs of contents that are in one row: there they may be alike by what the operator does."""
        pairs: set[frozenset[str]] = set()
        for example in self.examples:
            own = [self.looks[p].digest for _, p in _paths(example) if p in self.looks]
            pairs.update(frozenset((a, b)) for i, a in enumerate(own) for b in own[i + 1 :])
        return pairs

    def _check_rows(self) -> None:
        """Finds rows that are there twice, and held-out rows whose result or operands training sees."""
        whole: dict[tuple[object, ...], Example] = {}
        results: dict[str, Example] = {}  # of training
        operands: dict[tuple[object, ...], Example] = {}
        shown_: dict[str, Example] = {}
        for example in self.examples:  # training rows come first
            own = {role: self.alike[self.looks[p].digest] for role, p in _paths(example) if p in self.looks}
            if len(own) < sum(1 for _ in _paths(example)):
                continue  # a picture is missing or broken, which is told already
            exact = tuple((role, self.looks[p].digest) for role, p in _paths(example))
            key = (exact, tuple(example.texts.values()), example.caption)
            if key in whole:
                told = f"shows and says the same as {self._where(whole[key])}; leave one out"
                self._fault("duplicate", example, told)
            whole.setdefault(key, example)
            asked = (tuple((r, c) for r, c in own.items() if r != "target"), tuple(example.texts.values()))
            known = all(role in own for role in self.checked.folder.images)  # one of several operands may recur
            if example.split == SPLITS[0]:
                if "target" in own:
                    results.setdefault(own["target"], example)
                operands.setdefault(asked, example)
                for role, content in own.items():
                    if role != "target":
                        shown_.setdefault(content, example)
            elif key in whole and whole[key] is not example:
                continue
            elif known and asked in operands:
                self._fault("leak", example, f"has the operands of {self._where(operands[asked])}, a training row")
            elif own.get("target") in results:
                self._fault("leak", example, f"has the result of {self._where(results[own['target']])}, a training row")
            elif own.get("target") in shown_:
                told = f"has as its result an operand of {self._where(shown_[own['target']])}, a training row"
                self._fault("shared", example, told, fault=False)

    def _fault(self, kind: str, example: Example, what: str, fault: bool = True) -> None:
        where = f"{self._where(example)} ({example.split})"
        self.checked.findings.append(Finding(kind, where, what, tuple(p for _, p in _paths(example)), fault))

    def _note(self, kind: str, where: str, what: str, *pictures: Path) -> None:
        self.checked.findings.append(Finding(kind, where, what, pictures, fault=False))

    def _where(self, example: Example) -> str:
        return self.checked.folder.where(example)

    def _name(self, path: Path) -> str:
        return shown(path.relative_to(self.checked.folder.path))


def _check_rest(checked: Checked, looks: Mapping[Path, _Look]) -> None:
    """Adds notes on pictures that no row names, and on too few examples."""
    root = checked.folder.path
    found = (p for p in root.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES)
    extra = (p for p in found if p not in looks and not any(q[0] == "." for q in p.relative_to(root).parts))
    unused = sorted(extra)
    if unused:
        more = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
        told = f"{shown(unused[0].relative_to(root))}{more}: no row names it"
        checked.findings.append(Finding("unused", "", told, tuple(unused[:8]), fault=False))
    counts = checked.folder.counts
    if counts[SPLITS[0]] < FEW:
        told = f"{counts[SPLITS[0]]} examples to train on; {FEW} or more teach an operator, some hundred teach it well"
        checked.findings.append(Finding("few", "", told, fault=False))
    if len(checked.folder) and not counts["validation"] and not counts["test"]:
        told = "no example is held out (split validation or test), so nothing can be measured"
        checked.findings.append(Finding("few", "", told, fault=False))


def require_roles(words: str) -> list[str]:
    """Parses "object,texture,word"; ConfigError for an empty name."""
    names = [word.strip() for word in words.split(",")]
    ensure(all(names), f"--roles is a list of names such as object,texture, got {words!r}")
    return names
