"""Operators on the hub, a small one on loopback: pushed with their page, pulled with every file checked."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data.examples import write_examples
from loopback_hub import OWNER, READER, Hub, serving
from pops.errors import CheckpointError, ConfigError, ModelError, SpaceError
from pops.loading.manifest import MANIFEST, manifest_of
from pops.operators.checkpoint import load_operator
from pops.operators.model_card import Card
from pops.operators.operator import Operator
from pops.operators.sharing import fetch, pull, push
from pops.prior.transformer import PriorModel

REPO = "me/paint"
# huggingface_hub uploads with an argument of httpx2 that is deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
FIGURES = {
    "operator": "texturing", "cosine": 0.91234, "cosine_error": 0.01, "recall_at_1": 0.5, "beats_average": 0.75,
    "verdict": "learnt in part: it beats", "about": {"count": 20, "data": "pairs", "split": "test"},
    "baselines": {"average": {"role": "the operands' average", "cosine": 0.7, "recall_at_1": 0.25}},
}  # fmt: skip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    from huggingface_hub import constants

    with serving() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        address = f"{served.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", OWNER)
        yield served


@pytest.fixture
def operator(folder: Path) -> Path:
    """The folder of an operator of the random model."""
    return folder / "operators" / "texturing"


def names(path: Path) -> set[str]:
    return {p.name for p in path.iterdir()}


def test_push_and_pull_give_the_same_files(hub: Hub, operator: Path, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "grid.png")
    card = Card(FIGURES, "12 examples.\n", (tmp_path / "grid.png",), "cc0-1.0", "kandinsky-community/prior")
    address = push(operator, REPO, card)
    assert address.startswith(f"{hub.address}/{REPO}/commit/")
    there = hub.files(REPO)
    files = {"operator.json", "adapter.safetensors", MANIFEST, "README.md", "evaluation.json", "picture-0.png"}
    assert set(there) == files | {".gitattributes"}
    page = there["README.md"].decode()
    assert "license: cc0-1.0" in page and "base_model: kandinsky-community/prior" in page
    assert "| cosine to the truth | 91.2 | 1.0 |" in page and "| the operands' average | 70.0 | 25.0 |" in page
    assert "![texturing](picture-0.png)" in page and "12 examples." in page and f"pops operators pull {REPO}" in page
    out = pull(REPO, tmp_path / "out")
    assert names(out) == files
    for name in files - {MANIFEST}:
        assert (out / name).read_bytes() == there[name], name
    with pytest.raises(ConfigError, match="holds an operator already; choose another folder .-o., or add --force"):
        pull(REPO, tmp_path / "out")
    assert pull(REPO, tmp_path / "out", force=True) == out


def test_an_operator_object_pushes_saves_and_comes_back(hub: Hub, folder: Path, operator: Path, tmp_path: Path) -> None:
    base = PriorModel.load(folder)
    mine = load_operator(operator, base)
    mine.push_to_hub(REPO)
    for source in (REPO, mine.save_pretrained(tmp_path / "copy")):
        again = Operator.from_pretrained(source, base, space="random-32")
        assert again.spec == mine.spec
        key = "proj_in.weight"
        assert again.prior.transformer.state_dict()[key].equal(mine.prior.transformer.state_dict()[key])
    with pytest.raises(SpaceError, match="the operator is of space 'random-32', the model of 'other'"):
        Operator.from_pretrained(REPO, base, space="other")
    with pytest.raises(ConfigError, match="texturing was not loaded from an operator folder"):
        Operator(mine.spec, mine.prior).push_to_hub(REPO)


def test_private_repos_tokens_and_revisions(
    hub: Hub, operator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(operator, REPO, private=True)
    push(operator, REPO, Card(licence="mit"), revision="v2")
    assert hub.repos[REPO].private and b"mit" not in hub.files(REPO)["README.md"]
    assert "license: mit" in (pull(REPO, tmp_path / "v2", revision="v2") / "README.md").read_text()
    main = hub.repos[REPO].branches["main"]
    assert "license" not in (pull(REPO, tmp_path / "sha", revision=main) / "README.md").read_text().split("# ")[0]
    with pytest.raises(ModelError, match="me/paint has no revision 'v3'; name a branch, a tag or a commit"):
        fetch(REPO, revision="v3")
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(ModelError, match="there is no me/paint here or on the hub, or it is private; check the name, "):
        fetch(REPO)
    with pytest.raises(ModelError, match="cannot be written: your token does not allow it"):
        push(operator, "me/other")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ModelError, match="the hub does not know you; log in with `hf auth login`, or set HF_TOKEN"):
        push(operator, "me/other")
    assert pull(REPO, tmp_path / "own", token=OWNER).is_dir()


def changed(files: dict[str, bytes], **changes: bytes | None) -> dict[str, bytes]:
    names = {"operator": "operator.json", "manifest": MANIFEST, "weights": "adapter.safetensors", "page": "README.md"}
    both = {**files, **{names[key]: value for key, value in changes.items()}}
    return {name: value for name, value in both.items() if value is not None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": b"another"}, "adapter.safetensors has 7 bytes instead of"),
        ({"weights": "flip"}, "adapter.safetensors is damaged: its sha256 is not the one in manifest.json; ask its"),
        ({"operator": b"{}"}, "does not describe an operator"),
        ({"operator": None}, "holds no operator of pops: operator.json is missing"),
        ({"manifest": None}, "holds no operator of pops: manifest.json is missing"),
        ({"manifest": b"{}"}, "manifest.json is damaged: its text is not what pops wrote"),
        ({"manifest": "short"}, "manifest.json does not name adapter.safetensors"),
        ({"weights": None}, "holds no weights .adapter.safetensors or prior.safetensors."),
        ({"page": bytes(2**24 + 1)}, "README.md has 16,777,217 bytes, at most 16,777,216 are taken"),
    ],
)
def test_what_is_not_as_it_should_be_is_one_line(
    hub: Hub, operator: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    push(operator, REPO)
    files = hub.files(REPO)
    if change.get("weights") == "flip":
        change = {"weights": files["adapter.safetensors"][:-1] + b"\x7f"}
    if change.get("manifest") == "short":
        change = {"manifest": manifest_of(operator, ["operator.json"]).encode()}
    hub.put(REPO, changed(files, **change))
    with pytest.raises((ModelError, CheckpointError), match=message) as caught:
        pull(REPO, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_only_known_files_are_taken(hub: Hub, operator: Path, tmp_path: Path) -> None:
    push(operator, REPO)
    more = {"run.py": b"boom", "prior.bin": b"boom", "picture-0.svg": b"boom", "pictures/picture-1.png": b"boom"}
    hub.put(REPO, {**hub.files(REPO), **more})
    out = pull(REPO, tmp_path / "out")
    assert names(out) == {"operator.json", "adapter.safetensors", MANIFEST, "README.md"}
    assert not any(name in line for name in more for line in hub.log)


def test_a_repo_with_other_things_is_left_alone(hub: Hub, operator: Path) -> None:
    hub.put("me/model", {"config.json": b"{}"})
    with pytest.raises(ConfigError, match="me/model holds other files, such as config.json, and no operator; choose a"):
        push(operator, "me/model")
    assert set(hub.files("me/model")) == {"config.json"}
    with pytest.raises(ConfigError, match="a repo of the hub is user/repo, got 'model'"):
        push(operator, "model")


def test_what_a_newer_version_has_no_longer_goes(hub: Hub, operator: Path, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "grid.png")
    push(operator, REPO, Card(pictures=(tmp_path / "grid.png",)))
    hub.put(REPO, {**hub.files(REPO), "prior.safetensors": b"old", "notes.md": b"mine"})
    push(operator, REPO)
    assert set(hub.files(REPO)) == {
        ".gitattributes", "operator.json", "adapter.safetensors", MANIFEST, "README.md", "notes.md",
    }  # fmt: skip


def test_without_a_network_the_copy_here_serves(
    hub: Hub, operator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    push(operator, REPO)
    fetch(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.log)
    assert pull(REPO, tmp_path / "out").is_dir() and len(hub.log) == asked
    with pytest.raises(ModelError, match="me/else cannot be fetched .OfflineModeIsEnabled") as caught:
        fetch("me/else")
    assert "\n" not in str(caught.value)


PULL = """
import sys
from pops.operators.sharing import pull
pull(sys.argv[1], sys.argv[2])
"""


def test_killed_in_mid_transfer_and_resumed(hub: Hub, operator: Path, tmp_path: Path) -> None:
    push(operator, REPO)
    environment = {
        **os.environ, "HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_CACHE": str(tmp_path / "killed"),
    }  # fmt: skip
    held = hub.files(REPO)["adapter.safetensors"]
    hub.slow["adapter.safetensors"] = len(held) // 2  # the second half waits
    out = tmp_path / "out"
    run = subprocess.Popen([sys.executable, "-c", PULL, REPO, str(out)], env=environment)
    while not hub.waiting:
        assert run.poll() is None
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL and not out.exists()
    hub.slow.clear()
    before = len(hub.log)
    assert subprocess.run([sys.executable, "-c", PULL, REPO, str(out)], env=environment).returncode == 0
    fetched = [
        line.split()[1].rpartition("/")[2] for line in hub.log[before:] if line.startswith("GET /me/paint/resol")
    ]
    assert sorted(fetched) == ["README.md", "adapter.safetensors"], "what was whole is not fetched again"
    assert hashlib.sha256((out / "adapter.safetensors").read_bytes()).digest() == hashlib.sha256(held).digest()


def test_a_connection_that_breaks_goes_on_where_it_was(
    hub: Hub, operator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    push(operator, REPO)
    size = len(hub.files(REPO)["adapter.safetensors"])
    hub.stall["adapter.safetensors"] = size // 2
    pull(REPO, tmp_path / "out")
    again = [line for line in hub.log if "/adapter.safetensors bytes=" in line]
    assert again and 0 < int(again[0].rpartition("=")[2].rstrip("-")) <= size // 2


def test_a_push_that_is_killed_changes_nothing_and_goes_on(hub: Hub, operator: Path, tmp_path: Path) -> None:
    hub.refuse = "/commit/"
    with pytest.raises(ModelError, match="me/paint cannot be written: the hub answered 503; try again later"):
        push(operator, REPO)
    assert set(hub.files(REPO)) == {".gitattributes"}
    hub.refuse, before = "", len(hub.log)
    push(operator, REPO)
    assert not any(line.startswith("PUT /lfs/") for line in hub.log[before:]), "the weights are there already"
    assert "adapter.safetensors" in hub.files(REPO)


def test_the_commands(hub: Hub, call: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_examples(tmp_path / "pairs", license="CC0", word=None)
    (tmp_path / "pairs/README.md").write_text("---\nlicense: cc0-1.0\n---\n# Pairs\nDrawn by hand.\n")
    (tmp_path / "figures.json").write_text(json.dumps(FIGURES))
    words = ("--figures", "figures.json", "--data", "pairs", "--license", "cc0-1.0", "--private")
    done = call("operators", "push", "texturing", REPO, "--model", "$M", *words, "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["repo"] == REPO, done.output
    page = hub.files(REPO)["README.md"].decode()
    assert "### Pairs\nDrawn by hand." in page and "By license: CC0 (12)." in page and hub.repos[REPO].private
    done = call("operators", "pull", REPO, "-o", "mine", "--model", "$M", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["folder"] == "mine", done.output
    done = call(
        "run", "brush(a.png, b.png)", "--operator", f"brush={REPO}", "--model", "$M", "--save-embedding", "e.npy"
    )
    assert done.exit_code == 0, done.output
    (tmp_path / "other.json").write_text(json.dumps({**FIGURES, "operator": "union"}))
    done = call("operators", "push", "texturing", REPO, "--model", "$M", "--figures", "other.json")
    assert done.exit_code == 2 and "these are figures of 'union', not of 'texturing'" in done.stderr
    done = call("operators", "pull", REPO, "-o", "tiny-one", "--model", "tiny")
    assert done.exit_code == 2 and "the operator is of space 'random-32'" in done.stderr
    assert not (tmp_path / "tiny-one").exists()
    done = call("operators", "pull", "texturing", "-o", "x")
    assert done.exit_code == 2 and "are for a repo (user/repo)" in done.stderr
