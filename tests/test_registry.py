"""Names of models: folders are checked before anything is loaded, and no network is one clear line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pops.errors import ModelError
from pops.models import registry
from pops.models.registry import HUB, PARTS, known, resolve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder as far as the registry looks: its parts, an operator, a renderer and pops.json."""
    model = tmp_path / "house" / "mine"
    for part in PARTS:
        (model / part).mkdir(parents=True)
    for path in ("operators/texturing/operator.json", "renderer/model_index.json"):
        (model / path).parent.mkdir(parents=True)
        (model / path).write_text("{}")
    (model / "operators" / "notes").mkdir()
    (model / "pops.json").write_text(json.dumps({"name": "random", "space": "s", "size": 32, "renderer": "renderer"}))
    return model


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands for the hub: repo -> the folder of its snapshot, or the exception that asking for it raises."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    answers: dict[str, Any] = {}

    def snapshot_download(repo: str, local_files_only: bool = False, **_: Any) -> str:
        answer = answers.get(repo, ConnectionError("no network"))
        if isinstance(answer, tuple):
            answer = answer[1] if local_files_only else answer[0]
        elif isinstance(answer, Exception) and local_files_only:
            answer = LocalEntryNotFoundError("not here")
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return answers


def test_a_folder(folder: Path) -> None:
    files = resolve(folder)
    assert (files.name, files.folder, files.renderer) == ("random", folder, folder / "renderer")
    assert files.operators == {"texturing": folder / "operators" / "texturing"}
    assert files.info["space"] == "s" and files.info["size"] == 32


def test_a_folder_without_extras(folder: Path) -> None:
    (folder / "pops.json").unlink()
    shutil.rmtree(folder / "renderer")
    shutil.rmtree(folder / "operators")
    files = resolve(str(folder))
    assert (files.name, files.renderer, files.operators, files.info) == ("mine", None, {}, {})


def test_a_relative_folder_wins_over_a_hub_id(folder: Path, hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent.parent)
    assert resolve("house/mine").folder == Path("house/mine")


def test_an_incomplete_folder_names_what_is_missing(folder: Path) -> None:
    (folder / "prior").rmdir()
    (folder / "tokenizer").rmdir()
    with pytest.raises(ModelError, match="has no tokenizer, prior"):
        resolve(folder)


@pytest.mark.parametrize("text", ["{torn", "[]", "\0"])
def test_a_description_that_cannot_be_read(folder: Path, text: str) -> None:
    (folder / "pops.json").write_text(text)
    with pytest.raises(ModelError, match=r"pops\.json"):
        resolve(folder)


@pytest.mark.parametrize(
    "wrong", [{"size": "big"}, {"steps": 0}, {"guidance": None}, {"photo_side": True}, {"renderer": 3}]
)
def test_a_description_with_a_wrong_value(folder: Path, wrong: dict[str, Any]) -> None:
    (folder / "pops.json").write_text(json.dumps(wrong))
    with pytest.raises(ModelError, match=next(iter(wrong))):
        resolve(folder)


def test_a_renderer_that_is_named_and_absent(folder: Path) -> None:
    shutil.rmtree(folder / "renderer")
    with pytest.raises(ModelError, match="names a renderer that is not there"):
        resolve(folder)


def test_unknown_names(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"no model 'tinny' \(did you mean 'tiny'\?\)"):
        resolve("tinny")
    with pytest.raises(ModelError, match="no model '/nowhere/at/all'"):
        resolve("/nowhere/at/all")
    with pytest.raises(ModelError, match="is a file"):
        resolve(folder / "pops.json")


def test_tiny_is_the_packages_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "TINY", folder)
    assert (resolve("tiny").name, resolve("tiny").folder) == ("tiny", folder)


def test_a_hub_id(folder: Path, hub: dict[str, Any]) -> None:
    hub["someone/model"] = folder
    assert (resolve("someone/model").name, resolve("someone/model").folder) == ("someone/model", folder)


def test_a_named_model_is_three_repos(folder: Path, tmp_path: Path, hub: dict[str, Any]) -> None:
    model = HUB["kandinsky-2-2"]
    others = tmp_path / "others"
    for path in ("union/operator.json", "models/scene/learned_prior.pth"):
        (others / path).parent.mkdir(parents=True)
        (others / path).write_text("")
    hub |= {model.prior: folder, model.renderer: tmp_path, model.operators: others}
    files = resolve("kandinsky-2-2")
    assert (files.folder, files.renderer) == (folder, tmp_path)
    assert files.operators == {"union": others / "union"}
    assert files.info["official"] == {"scene": others / "models" / "scene" / "learned_prior.pth"}
    assert files.info["space"] == "clip-vit-bigg-14"


@pytest.mark.parametrize("name", ["kandinsky-2-2", "someone/model"])
def test_without_a_network_there_is_one_line_that_helps(hub: dict[str, Any], name: str) -> None:
    with pytest.raises(ModelError, match="is not on this machine and .* cannot be fetched") as caught:
        resolve(name)
    assert "\n" not in str(caught.value) and "give its path" in str(caught.value)


def test_without_a_network_the_copy_on_this_machine_serves(folder: Path, hub: dict[str, Any]) -> None:
    hub["someone/model"] = (ConnectionError("no network"), folder)
    assert resolve("someone/model").folder == folder


def test_a_repo_that_does_not_exist(hub: dict[str, Any]) -> None:
    import httpx2 as httpx
    from huggingface_hub.errors import RepositoryNotFoundError

    response = httpx.Response(404, request=httpx.Request("GET", "https://hub"))
    hub["someone/modle"] = RepositoryNotFoundError("404", response=response)
    with pytest.raises(ModelError, match="check the name"):
        resolve("someone/modle")


def test_the_list_of_names(hub: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "TINY", folder)
    (folder / "model_index.json").write_text("{}")
    rows = {row["name"]: row for row in known()}
    assert list(rows) == ["tiny", "kandinsky-2-2"]
    assert (rows["tiny"]["here"], rows["kandinsky-2-2"]["here"]) == (True, False)
    assert all(set(row) == {"name", "summary", "source", "here"} for row in rows.values())
