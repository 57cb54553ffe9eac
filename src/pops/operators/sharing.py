"""Operators on the Hugging Face hub: pushed with their page, pulled with every file checked. Tokens are the hub's own.

A repo holds an operator folder's files and the page. Only files of known names and bounded sizes are taken from one,
and only if operator.json and the weights are what the manifest says.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.errors import CheckpointError, ModelError, PopsError, ensure, shown
from pops.files import check_place, expanded
from pops.loading.manifest import MANIFEST, differing, listed, manifest_of, verify
from pops.operators.checkpoint import ADAPTER_FILE, PRIOR_FILE, SPEC_FILE, load_spec, read_description
from pops.operators.folder import write_folder
from pops.operators.model_card import Card, text_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = logging.getLogger("pops.operators")

CARD_FILE, FIGURES_FILE = "README.md", "evaluation.json"
PICTURE = re.compile(r"picture-\d{1,2}\.(png|jpg|webp)")
SUFFIXES = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}
PICTURES = 20
# Most bytes of a file that is taken from a repo; weights may have any size.
MOST = {SPEC_FILE: 2**24, MANIFEST: 2**24, CARD_FILE: 2**24, FIGURES_FILE: 2**24}
MOST_PICTURE = 2**25
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def is_repo(name: str) -> bool:
    """Whether a text has the form of a repo of the hub: user/repo."""
    return _REPO.fullmatch(name) is not None


def located(source: str | Path, *, revision: str | None = None, token: str | None = None) -> Path:
    """Returns the folder of an operator, given the folder, or a repo of the hub, which is fetched."""
    path = expanded(source)
    if path.exists() or not is_repo(str(source)):
        ensure(revision is None, f"{shown(path)} is a folder: revisions are of repos on the hub")
        return path
    return fetch(str(source), revision=revision, token=token)


def copy_operator(source: Path, folder: str | Path, *, force: bool = True) -> Path:
    """Copies an operator folder's known files, each checked, to `folder`, which is written whole.

    force: an operator that is there is replaced. ConfigError for a folder that holds something else.
    """
    target = expanded(folder)
    about = read_description(source)
    verify(source, error=CheckpointError, whole=True)
    if target.is_dir() and any(target.iterdir()):
        name = shown(target)
        ours = (target / SPEC_FILE).is_file()
        ensure(ours, f"{name} holds other files and no operator; choose a new folder (-o)")
        ensure(force, f"{name} holds an operator already; choose another folder (-o), or add --force")
    check_place(target / SPEC_FILE)
    pictures = [p.name for p in sorted(source.iterdir()) if PICTURE.fullmatch(p.name)]
    names = [SPEC_FILE, about["weights"], *(n for n in (CARD_FILE, FIGURES_FILE) if (source / n).is_file()), *pictures]
    own = (SPEC_FILE, ADAPTER_FILE, PRIOR_FILE, CARD_FILE, FIGURES_FILE, *pictures)
    with write_folder(target, own) as temporary:
        for name in names:
            shutil.copyfile(source / name, temporary / name)
    return target


# --- from the hub ----------------------------------------------------------------------------------------------------


def fetch(repo: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """Fetches an operator into the hub's cache and returns its folder there; files that are there are not fetched
    again. Without a network the copy on this machine serves.

    ModelError in one line if the repo cannot be fetched, or holds no operator; CheckpointError if a file is not what
    its manifest says.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    begun = time.perf_counter()
    api = _api(token)
    try:
        info = api.model_info(repo, revision=revision, files_metadata=True)
    except (HfHubHTTPError, HFValidationError) as e:
        raise ModelError(_why(e, repo, revision)) from e
    except Exception as e:  # no network; the hub client lets its HTTP library's own errors through
        folder = _cached(repo, revision)
        if folder is None:
            raise ModelError(_why(e, repo, revision)) from e
        logger.info("%s cannot be fetched; using the copy in %s", repo, folder)
        return _checked(folder, repo)
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
    with _explained(repo, revision):
        first, *others = _wanted(repo, sizes)
        folder = Path(
            api.hf_hub_download(repo, first, revision=revision)
        ).parent  # the cache notes which commit this is
        ensure(folder.name == info.sha, f"{repo} has just changed; run the command again", ModelError)
        for name in others:
            api.hf_hub_download(repo, name, revision=info.sha)
    logger.info("fetched operator %s at %s in %.1f s", repo, info.sha, time.perf_counter() - begun)
    return _checked(folder, repo)


def _wanted(repo: str, sizes: dict[str, int]) -> list[str]:
    """Returns the files of a repo that are taken, the description first; ModelError if it holds no operator."""
    for name in (SPEC_FILE, MANIFEST):
        ensure(name in sizes, f"{repo} holds no operator of pops: {name} is missing; check the name", ModelError)
    weights = [name for name in (ADAPTER_FILE, PRIOR_FILE) if name in sizes]
    told = f"{repo} holds no weights ({ADAPTER_FILE} or {PRIOR_FILE}); push the operator again"
    ensure(bool(weights), told, ModelError)
    pictures = sorted(name for name in sizes if PICTURE.fullmatch(name))[:PICTURES]
    for name in (*MOST, *pictures):
        most, size = MOST.get(name, MOST_PICTURE), sizes.get(name, 0)
        ensure(size <= most, f"{repo}: {name} has {size:,} bytes, at most {most:,} are taken", ModelError)
    return [SPEC_FILE, MANIFEST, *weights, *(n for n in (CARD_FILE, FIGURES_FILE) if n in sizes), *pictures]


def _checked(folder: Path, repo: str) -> Path:
    """Returns a fetched folder if operator.json and the weights are as its manifest says; CheckpointError if not."""
    again = "ask its author to push it again"
    try:
        weights = read_description(folder)["weights"]
        names = listed(folder, error=CheckpointError)
        faults = differing(folder, error=CheckpointError, whole=True)
    except CheckpointError as e:
        raise CheckpointError(f"{repo} on the hub: {e}") from e
    absent = [name for name in (SPEC_FILE, weights) if name not in names]
    ensure(not absent, f"{repo} on the hub: {MANIFEST} does not name {', '.join(absent)}; {again}", CheckpointError)
    told = "; ".join(f"{shown(name)} {fault}" for name, fault in faults.items())
    ensure(not faults, f"{repo} on the hub: {told}; {again}", CheckpointError)
    return folder


def _cached(repo: str, revision: str | None) -> Path | None:
    """Returns the copy of a repo on this machine, or None."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repo, SPEC_FILE, revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def pull(
    repo: str, folder: str | Path, *, revision: str | None = None, token: str | None = None, force: bool = False
) -> Path:
    """Fetches an operator from the hub and writes its folder; force: replaces an operator that is there."""
    target = expanded(folder)
    taken = (target / SPEC_FILE).is_file() and not force
    ensure(not taken, f"{shown(target)} holds an operator already; choose another folder (-o), or add --force")
    return copy_operator(fetch(repo, revision=revision, token=token), target, force=force)


# --- to the hub ------------------------------------------------------------------------------------------------------


def push(
    folder: str | Path,
    repo: str,
    card: Card | None = None,
    *,
    private: bool | None = None,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> str:
    """Uploads an operator folder and its page to a repo, in one commit; returns the commit's address.

    private: of a repo that is made now; revision: a branch, made if need be. ConfigError for a repo that holds other
    things, ModelError in one line if the hub cannot be reached or refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    source, card = expanded(folder), card or Card()
    ensure(is_repo(repo), f"a repo of the hub is user/repo, got {shown(repr(repo))}")
    files = _files(source, repo, card)
    api = _api(token)
    with _explained(repo, revision, writing=True):
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        there = api.list_repo_files(repo, revision=revision)
        others = [name for name in there if not _is_known(name)]
        told = f"{repo} holds other files, such as {shown(others[0] if others else '')}, and no operator"
        ensure(not others or SPEC_FILE in there, f"{told}; choose a new repo")
        operations: list[Any] = [CommitOperationAdd(name, content) for name, content in files.items()]
        # Weights of another kind, and pictures that this version has no longer.
        stale = [n for n in there if _is_known(n) and n not in (*files, ".gitattributes", CARD_FILE)]
        operations += [CommitOperationDelete(name) for name in stale]
        words = message or f"Operator {load_spec(source).name}"
        done = api.create_commit(repo, operations, commit_message=words, revision=revision)
    return str(done.commit_url)


def _files(source: Path, repo: str, card: Card) -> dict[str, str | bytes]:
    """Returns what a repo is to hold: name -> a file's path, or bytes."""
    about, spec = read_description(source), load_spec(source)
    card.check(spec.name)
    verify(source, error=CheckpointError, whole=True)
    names = [SPEC_FILE, str(about["weights"])]
    files: dict[str, str | bytes] = {name: str(source / name) for name in names}
    files[MANIFEST] = manifest_of(source, names).encode()
    if card.figures is not None:
        files[FIGURES_FILE] = (json.dumps(card.figures, indent=2) + "\n").encode()
    ensure(len(card.pictures) <= PICTURES, f"at most {PICTURES} pictures, got {len(card.pictures)}")
    pictures = []
    for i, path in enumerate(card.pictures):
        suffix = SUFFIXES.get(path.suffix.lower())
        told = f"{shown(path)} cannot be shown on a page; give a {', '.join(SUFFIXES)} of at most 32 MB"
        ensure(suffix is not None and path.is_file() and path.stat().st_size <= MOST_PICTURE, told)
        pictures.append(f"picture-{i}.{suffix}")
        files[pictures[-1]] = str(path)
    files[CARD_FILE] = text_of(card, spec, about, repo, pictures).encode()
    return files


def _is_known(name: str) -> bool:
    known = (SPEC_FILE, MANIFEST, ADAPTER_FILE, PRIOR_FILE, CARD_FILE, FIGURES_FILE, ".gitattributes")
    return name in known or PICTURE.fullmatch(name) is not None


# --- the hub's client ------------------------------------------------------------------------------------------------


def _api(token: str | None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(token=token, library_name="pops")


@contextmanager
def _explained(repo: str, revision: str | None, *, writing: bool = False) -> Iterator[None]:
    """Turns the hub client's errors into one line."""
    try:
        yield
    except PopsError:
        raise
    except Exception as e:  # the hub client lets its HTTP library's own errors through, which differ by version
        raise ModelError(_why(e, repo, revision, writing=writing)) from e


def _why(error: Exception, repo: str, revision: str | None, *, writing: bool = False) -> str:
    """Returns one line: what was asked for, why it failed, what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    while isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):  # of an upload's thread
        error = error.__cause__
    what = f"{repo} cannot be {'written' if writing else 'fetched'}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError):
        return f"{repo} on the hub asks for an agreement; accept it on its page, and {_LOG_IN}"
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no revision {shown(repr(revision))}; name a branch, a tag or a commit"
    if isinstance(error, RepositoryNotFoundError) and not writing:
        return f"there is no {repo} here or on the hub, or it is private; check the name, or {_LOG_IN}"
    if isinstance(error, HFValidationError):
        return f"a repo of the hub is user/repo, got {shown(repr(repo))}"
    if status == 401 or isinstance(error, RepositoryNotFoundError):
        return f"{what}: the hub does not know you; {_LOG_IN}"
    if status == 403:
        return f"{what}: your token does not allow it; make one that may write, and {_LOG_IN}"
    if isinstance(error, HfHubHTTPError):
        return f"{what}: the hub answered {status}; try again later"
    if isinstance(error, OSError) and error.errno:
        return f"{what} ({error.strerror or error})"
    told = shown((str(error).strip().splitlines() or [""])[0], 120)
    return f"{what} ({type(error).__name__}{': ' + told if told else ''}); connect to the network and try again"
