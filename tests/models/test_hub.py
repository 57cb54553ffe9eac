"""Names of models and their folders: checked before anything is loaded; without a network, one clear line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pops.errors import ModelError
from pops.models.hub import HUB, known, pull, pull_operators, resolve
from pops.models.layout import PARTS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder as far as `layout` reads it: its parts, an operator, a renderer and pops.json."""
    model = tmp_path / "house" / "mine"
    for part in PARTS:
        (model / part).mkdir(parents=True)
    for path in ("operators/texturing/operator.json", "renderer/model_index.json"):
        (model / path).parent.mkdir(parents=True)
        (model / path).write_text("{}")
    (model / "operators" / "notes").mkdir()
    (model / "pops.json").write_text(json.dumps({"name": "random", "space": "s", "size": 32, "renderer": "renderer"}))
    return model


def write_decoder(folder: Path, pipeline: str = "KandinskyV22Pipeline") -> Path:
    """A Kandinsky decoder's folder as far as `layout` reads it."""
    for part in ("unet", "movq", "scheduler"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "diffusion_pytorch_model.safetensors").write_text("")
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDPMScheduler"}))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    return folder


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
    with pytest.raises(ModelError, match=r"unknown model 'tinny' \(did you mean 'tiny'\?\); choose from tiny, "):
        resolve("tinny")
    with pytest.raises(ModelError, match="unknown model '/nowhere/at/all'"):
        resolve("/nowhere/at/all")
    with pytest.raises(ModelError, match="is a file"):
        resolve(folder / "pops.json")


def test_tiny_is_the_packages_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pops.models.hub.TINY", folder)
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
    write_decoder(tmp_path)
    hub |= {model.prior: folder, model.renderer: tmp_path, model.operators: others}
    files = resolve("kandinsky-2-2")
    assert (files.folder, files.renderer) == (folder, tmp_path)
    assert files.operators == {"union": others / "union"}
    assert files.info["official"] == {"scene": others / "models" / "scene" / "learned_prior.pth"}
    assert files.info["space"] == "clip-vit-bigg-14"


# --- Kandinsky's layout: prior and decoder, in one folder or two ------------------------------------------


def test_a_decoder_of_its_own(folder: Path, tmp_path: Path, hub: dict[str, Any]) -> None:
    decoder = write_decoder(tmp_path / "decoder")
    assert resolve(folder, decoder=decoder).renderer == decoder
    assert resolve(folder, decoder=str(folder)).renderer == folder / "renderer", "a model's renderer"
    hub["someone/decoder"] = decoder
    assert resolve(folder, decoder="someone/decoder").renderer == decoder
    (tmp_path / "decoder" / "model_index.json").unlink()
    assert resolve(folder, decoder=decoder).renderer == decoder
    shutil.rmtree(folder / "renderer")
    (folder / "pops.json").unlink()
    (folder / "model_index.json").write_text("{}")
    for wrong, says in (
        (folder, "is no decoder"),
        (tmp_path / "nowhere", "unknown model"),
        (folder / "prior", "no decoder"),
    ):
        with pytest.raises(ModelError, match=says):
            resolve(folder, decoder=wrong)


@pytest.mark.parametrize("place", ["decoder", "renderer", "."])
def test_prior_and_decoder_in_one_folder(folder: Path, place: str) -> None:
    (folder / "pops.json").unlink()
    shutil.rmtree(folder / "renderer")
    write_decoder(folder / place)
    files = resolve(folder)
    assert files.renderer == folder / place and files.folder == folder
    assert files.part("prior") == folder / "prior"
    own = folder / "scheduler"
    assert files.part("scheduler") == (None if place == "." else own), "the scheduler there is the decoder's"


def test_the_repos_side_by_side(folder: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    shutil.copytree(folder, both / "prior", ignore=shutil.ignore_patterns("renderer", "pops.json"))
    write_decoder(both / "decoder")
    files = resolve(both)
    assert (files.name, files.folder, files.renderer) == ("both", both / "prior", both / "decoder")


def test_the_combined_pipelines_layout(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "all", "KandinskyV22CombinedPipeline")
    for part in PARTS:
        (folder / f"prior_{part}").mkdir()
    files = resolve(folder)
    assert all(files.part(part) == folder / f"prior_{part}" for part in PARTS) and files.renderer == folder


def test_a_decoder_alone_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a decoder alone: give the prior's folder as the model"):
        resolve(write_decoder(tmp_path / "decoder"))


# --- fetching ---------------------------------------------------------------------------------------------


def write_prior(folder: Path) -> Path:
    for part in PARTS:
        (folder / part).mkdir(parents=True)
        (folder / part / "model.safetensors").write_text("")
    return folder


def test_pull_fetches_what_is_not_whole(tmp_path: Path, hub: dict[str, Any]) -> None:
    model = HUB["kandinsky-2-2"]
    prior, decoder, cut = write_prior(tmp_path / "p"), write_decoder(tmp_path / "d"), tmp_path / "cut"
    cut.mkdir()
    hub |= {model.prior: (ConnectionError("no network"), prior), model.renderer: decoder}
    assert pull("kandinsky-2-2") == [prior, decoder]
    hub[model.renderer] = (decoder, cut)
    assert pull("kandinsky-2-2") == [prior, decoder], "an interrupted one goes on"
    hub[model.renderer] = (ConnectionError("no network"), cut)
    with pytest.raises(ModelError, match="cannot be fetched .ConnectionError.; connect to the network"):
        pull("kandinsky-2-2")
    hub[model.renderer] = (cut, cut)
    with pytest.raises(ModelError, match="was not fetched whole: run the command again"):
        pull("kandinsky-2-2")
    rows = {row["name"]: row["here"] for row in known()}
    assert rows["kandinsky-2-2"] is False
    hub[model.renderer] = decoder
    assert {row["name"]: row["here"] for row in known()}["kandinsky-2-2"] is True


def test_pull_of_what_is_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pops.models.hub.TINY", folder)
    assert pull("tiny") == [folder] and pull(str(folder)) == [folder]
    with pytest.raises(ModelError, match="did you mean 'tiny'"):
        pull("tinny")


def test_pull_of_operators(tmp_path: Path, hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    repo = HUB["kandinsky-2-2"].operators
    file = tmp_path / "models" / "scene" / "learned_prior.pth"
    file.parent.mkdir(parents=True)
    file.write_text("")
    hub[repo] = tmp_path
    assert pull_operators(["scene", "scene"]) == {"scene": file}
    hub[repo] = (ConnectionError("no network"), tmp_path)
    assert pull_operators(["scene"]) == {"scene": file}
    with pytest.raises(ModelError, match="^union .pOpsPaper/operators. is not on this machine and") as caught:
        pull_operators(["scene", "union"])
    assert "\n" not in str(caught.value)
    hub[repo] = (tmp_path, tmp_path)
    with pytest.raises(ModelError, match="not fetched whole .no union.; connect"):
        pull_operators(["union"])
    with pytest.raises(ModelError, match=r"unknown official operator 'unoin' \(did you mean 'union'\?\); choose from"):
        pull_operators(["unoin"])
    with pytest.raises(ModelError, match="fetched for kandinsky-2-2, not for tiny"):
        pull_operators(["union"], "tiny")


def test_only_the_files_needed_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import fnmatch

    import huggingface_hub

    asked: dict[str, Any] = {}

    def snapshot_download(repo: str, **how: Any) -> str:
        if how.get("local_files_only"):
            raise OSError("not here")
        asked.update(how)
        return "/nowhere"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(ModelError):
        pull_operators(["scene"])
    wanted = [p for p in asked["allow_patterns"] if fnmatch.fnmatch("models/scene/learned_prior.pth", p)]
    others = ("models/union/learned_prior.pth", "models/scene/optimizer.pth", "README.md")
    assert wanted and not [o for o in others for p in asked["allow_patterns"] if fnmatch.fnmatch(o, p)]


@pytest.mark.parametrize("name", ["kandinsky-2-2", "someone/model"])
def test_without_a_network_there_is_one_line_that_helps(hub: dict[str, Any], name: str) -> None:
    with pytest.raises(ModelError, match="is not on this machine and cannot be fetched .Conn") as caught:
        resolve(name)
    assert "\n" not in str(caught.value) and "give its path" in str(caught.value)
    assert str(caught.value).count("someone/model") == (name == "someone/model"), "one thing, said once"


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
    monkeypatch.setattr("pops.models.hub.TINY", folder)
    (folder / "model_index.json").write_text("{}")
    rows = {row["name"]: row for row in known()}
    assert list(rows) == ["tiny", "kandinsky-2-2"]
    assert (rows["tiny"]["here"], rows["kandinsky-2-2"]["here"]) == (True, False)
    assert all(set(row) == {"name", "summary", "source", "needs", "get", "here"} for row in rows.values())


@pytest.mark.parametrize(("offline", "why"), [(True, "HF_HUB_OFFLINE is set"), (False, "the hub is not reachable")])
def test_the_line_says_why_the_hub_gave_nothing(
    hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch, offline: bool, why: str
) -> None:
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    hub[HUB["kandinsky-2-2"].prior] = LocalEntryNotFoundError("none")
    with pytest.raises(ModelError, match=re.escape(f"cannot be fetched ({why}); connect to the network")) as caught:
        resolve("kandinsky-2-2")
    assert caught.value.__cause__ is None and caught.value.__suppress_context__, "a traceback says it once"
