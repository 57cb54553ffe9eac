"""Libraries of photos: what goes in, what is skipped and reported, resuming, changes, and the exact nearest."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import pops
from pops.cli.main import app
from pops.embedding import Embedding
from pops.errors import Cancelled, ConfigError, PhotoError, PopsError, SpaceError
from pops.library import Library
from pops.library import index as indexing
from pops.library.index import Report, index_folder
from pops.library.nearest import nearest, unit_rows
from pops.render import get
from pops.render.base import RendererOptions, RenderOptions

pytest.importorskip("lancedb")

SIDE = 8


class Thumbnails:
    """An encoder whose vectors are the pixels of an 8 x 8 picture about their mean."""

    def __init__(self, space: str = "thumbnails", fingerprint: str = "one") -> None:
        self.id, self.dim, self.fingerprint = space, 3 * SIDE * SIDE, fingerprint
        self.seen: list[int] = []

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        self.seen.append(len(images))
        rows = [np.asarray(i.resize((SIDE, SIDE)), dtype=np.float32).flatten() / 128 - 1 for i in images]
        return torch.from_numpy(np.stack(rows))


def photo(path: Path, seed: int, side: int = 24) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    small.resize((side, side), Image.Resampling.NEAREST).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(6):
        photo(tmp_path / "photos" / f"{'sub/' if i > 3 else ''}{i}.png", i)
    return tmp_path / "photos"


def index(folder: Path, library: Path, encoder: Thumbnails | None = None, **how: Any) -> Report:
    return index_folder(folder, library, encoder or Thumbnails(), side=SIDE, **how)


def embedding_of(*paths: Path) -> Embedding:
    from pops.images import load_photo

    return Embedding(Thumbnails().encode_images([load_photo(p, size=SIDE) for p in paths]), "thumbnails")


def found(library: Path, path: Path, count: int = 1) -> list[str]:
    return [m.path for m in Library.open(library).search(embedding_of(path), count)[0]]


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels by its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


# --- what goes in ------------------------------------------------------------------------------------------------


def test_every_photo_finds_itself_and_vectors_keep_their_length(folder: Path, tmp_path: Path) -> None:
    report = index(folder, tmp_path / "lib")
    assert (report.photos, report.new, report.encoded, report.skipped, report.others) == (6, 6, 6, {}, {})
    library = Library.open(tmp_path / "lib")
    for path in sorted(folder.rglob("*.png")):
        best, second = library.search(embedding_of(path), 2)[0]
        assert best.path == str(path) and best.score == pytest.approx(1, abs=1e-6) and second.score < 0.9
    stored = library._vectors.to_arrow()["vector"].to_pylist()
    norms = {round(float(np.linalg.norm(v)), 3) for v in stored}
    assert len(norms) == 6 and 1.0 not in norms, "vectors are kept un-normalised"


def test_a_folder_of_everything_is_indexed_around_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "0.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "huge.png").write_bytes(bomb())
    (folder / "text.jpg").write_text("not a photo")
    (folder / "notes.txt").write_text("to do")
    (folder / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(64))
    (folder / ".hidden.png").write_bytes(whole)
    (folder / "nowhere.png").symlink_to(folder / "gone.png")
    (folder / "sub" / "back").symlink_to(folder)  # a loop
    os.mkfifo(folder / "pipe.png")
    shutil.copy(folder / "0.png", folder / "same.png")
    photo(folder / "Ünïcödé 写真 'quoted\".png", 20)
    Image.new("CMYK", (9, 9), (200, 10, 10, 0)).save(folder / "cmyk.jpg")
    upright = Image.fromarray(np.random.default_rng(5).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn it by a quarter
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)

    report = index(folder, tmp_path / "lib")
    assert report.photos == 10 and report.encoded == 9, "same.png is 0.png"
    whys = {Path(p).name: why for p, why in report.skipped.items()}
    assert set(whys) == {"cut.png", "empty.jpg", "huge.png", "text.jpg", "nowhere.png", "pipe.png"}
    assert "broken" in whys["cut.png"] and "empty" in whys["empty.jpg"] and "too large" in whys["huge.png"]
    assert "not a photo" in whys["text.jpg"] and "leads nowhere" in whys["nowhere.png"]
    assert all("\n" not in why and str(folder) not in why for why in whys.values())
    assert {Path(p).name for p in report.others} == {"notes.txt", "film.mp4"}

    again = index(folder, tmp_path / "lib")
    assert (again.encoded, again.new, again.unchanged) == (0, 0, 10)
    assert (again.skipped, again.others) == (report.skipped, report.others), "told again, though not opened again"
    match = Library.open(tmp_path / "lib").search(embedding_of(folder / "0.png"), 1)[0][0]
    assert (Path(match.path).name, [Path(c).name for c in match.copies]) == ("0.png", ["same.png"])
    upright.save(tmp_path / "upright.png")
    assert found(tmp_path / "lib", tmp_path / "upright.png") == [str(folder / "turned.png")]


def test_an_unreadable_file_is_told_and_tried_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = indexing._digest

    def locked(path: str) -> str:
        if path.endswith("3.png"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(indexing, "_digest", locked)  # root may read everything, so permissions would not do
    report = index(folder, tmp_path / "lib")
    assert report.photos == 5 and "Permission denied" in report.skipped[str(folder / "3.png")]
    monkeypatch.undo()
    report = index(folder, tmp_path / "lib")
    assert (report.photos, report.new, report.encoded, report.skipped) == (6, 1, 1, {})


def test_a_folder_without_photos_makes_no_library(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.png").touch()
    with pytest.raises(PhotoError, match="holds no photo.*1 files.*empty"):
        index(tmp_path / "empty", tmp_path / "deep" / "lib")
    assert not (tmp_path / "deep").exists()
    with pytest.raises(ConfigError, match="there is no folder"):
        index(tmp_path / "nothere", tmp_path / "lib")
    with pytest.raises(ConfigError, match="is not a folder"):
        index(tmp_path / "empty" / "a.png", tmp_path / "lib")


# --- changes -----------------------------------------------------------------------------------------------------


def test_new_changed_moved_touched_and_removed_files(folder: Path, tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    index(folder, lib)
    photo(folder / "new.png", 30)
    photo(folder / "1.png", 31)
    os.utime(folder / "1.png", ns=(1, 1))
    (folder / "2.png").rename(folder / "moved.png")
    (folder / "3.png").unlink()
    os.utime(folder / "0.png", ns=(5, 5))
    report = index(folder, lib)
    assert (report.photos, report.encoded) == (6, 2), "moved and touched ones are not encoded again"
    assert (report.new, report.changed, report.removed, report.unchanged) == (2, 1, 2, 3)
    assert found(lib, folder / "1.png") == [str(folder / "1.png")]
    assert found(lib, folder / "moved.png") == [str(folder / "moved.png")]
    assert str(folder / "3.png") not in found(lib, folder / "0.png", 10)
    assert Library.open(lib).digests() == set(Library.open(lib).photos), "vectors without a file are gone"


def test_two_folders_share_a_library_and_prune_forgets_what_is_nowhere(folder: Path, tmp_path: Path) -> None:
    lib, other = tmp_path / "lib", tmp_path / "other"
    photo(other / "x.png", 40)
    index(folder, lib)
    assert index(other, lib).photos == 7
    shutil.rmtree(other)
    assert index(folder, lib).photos == 7, "another folder, perhaps on a disk that is not plugged in"
    pruned = index(folder, lib, prune=True)
    assert (pruned.photos, pruned.removed) == (6, 1)


def test_a_library_inside_the_folder_is_passed_over(folder: Path) -> None:
    index(folder, folder / "lib")
    photo(folder / "7.png", 7)
    assert index(folder, folder / "lib").photos == 7


# --- going on, and whole or not at all ------------------------------------------------------------------------------


def test_a_stopped_run_leaves_a_usable_library_and_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "BATCH", 2)

    def stop(done: int, total: int, what: str) -> None:
        if done == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        index(folder, tmp_path / "lib", on_progress=stop)
    matches = Library.open(tmp_path / "lib").search(embedding_of(folder / "0.png"), 10)[0]
    assert Path(matches[0].path).name == "0.png" and len(matches) == 4
    encoder = Thumbnails()
    report = index(folder, tmp_path / "lib", encoder)
    assert (report.photos, report.encoded, report.unchanged, encoder.seen) == (6, 2, 4, [2])


def test_killed_between_the_tables_only_the_search_file_is_made_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lib = tmp_path / "lib"
    index(folder, lib)
    photo(folder / "8.png", 50)
    library = Library.open(lib)
    library.commit(library.entries(), {"ab" * 32: torch.ones(library.about.dim)})  # a vector whose file never came
    assert len(found(lib, folder / "0.png", 10)) == 6
    report = index(folder, lib)
    assert (report.photos, report.encoded) == (7, 1)
    assert "ab" * 32 not in Library.open(lib).digests()


def test_an_open_library_sees_what_another_run_changed(folder: Path, tmp_path: Path) -> None:
    index(folder, tmp_path / "lib")
    library = Library.open(tmp_path / "lib")
    new = photo(folder / "9.png", 60)
    assert library.search(embedding_of(new), 1)[0][0].score < 0.99
    index(folder, tmp_path / "lib")
    assert library.search(embedding_of(new), 1)[0][0].path == str(new)


def test_two_writers_are_one_too_many(folder: Path, tmp_path: Path) -> None:
    def second(done: int, total: int, what: str) -> None:
        with pytest.raises(ConfigError, match="another pops index"):
            index(folder, tmp_path / "lib")

    assert index(folder, tmp_path / "lib", on_progress=second).photos == 6


def test_a_damaged_library_is_one_line(folder: Path, tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    index(folder, lib)
    shutil.rmtree(lib / "vectors.lance")
    with pytest.raises(PopsError, match="cannot be read") as e:
        Library.open(lib).search(embedding_of(folder / "0.png"))
    assert "\n" not in str(e.value)
    (lib / "library.json").write_text("{")
    with pytest.raises(ConfigError, match=r"library\.json cannot be read .*; index into a new library"):
        Library.open(lib)
    (lib / "library.json").write_text('{"format": "pops.library", "version": 1, "dim": 3}')
    with pytest.raises(ConfigError, match="lacks space, fingerprint, fit, side"):
        Library.open(lib)
    with pytest.raises(ConfigError, match="not a library; make one with: pops index"):
        Library.open(tmp_path / "nothere")
    with pytest.raises(ConfigError, match="other things in it"):
        index(folder, folder)


# --- spaces --------------------------------------------------------------------------------------------------------


def test_another_space_encoder_or_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    index(folder, lib, fit="pad")
    with pytest.raises(SpaceError, match="of space 'other', .* holds space 'thumbnails'"):
        index(folder, lib, Thumbnails(space="other"))
    with pytest.raises(SpaceError, match="another version of the encoder"):
        index(folder, lib, Thumbnails(fingerprint="two"))
    with pytest.raises(ConfigError, match="made square by pad to 8 pixels, not crop"):
        index(folder, lib, fit="crop")
    assert index(folder, lib).unchanged == 6, "without --fit the library's own"
    library = Library.open(lib)
    with pytest.raises(SpaceError, match="of space 'other' cannot be used in space 'thumbnails'"):
        library.search(Embedding(torch.ones(1, library.about.dim), "other"))
    with pytest.raises(SpaceError, match="width"):
        library.search(Embedding(torch.ones(1, 5), "unknown"))
    with pytest.raises(ConfigError, match="1 or more"):
        library.search(embedding_of(folder / "0.png"), 0)


# --- the nearest ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [1.0, 0.02, 0.0005])
def test_the_fast_search_equals_the_slow_one(spread: float) -> None:
    gen = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, 64, generator=gen) + spread * torch.randn(3000, 64, generator=gen)
    vectors[7] = vectors[2000]  # equals: the first comes first
    rows, unit = unit_rows(vectors), torch.nn.functional.normalize(vectors)
    blocks, looked = [rows[:1000], rows[1000:1000], rows[1000:]], []
    for query in (vectors[2000], torch.randn(64, generator=gen), -vectors[5]):

        def exact(numbers: torch.Tensor, query: torch.Tensor = query) -> torch.Tensor:
            looked.append(len(numbers))
            return unit[numbers] @ torch.nn.functional.normalize(query, dim=0)

        slow = (unit @ torch.nn.functional.normalize(query, dim=0)).sort(descending=True, stable=True)
        numbers, cosines = nearest(blocks, query, 20, exact)
        assert torch.equal(cosines, cosines.sort(descending=True).values)
        torch.testing.assert_close(cosines, slow.values[:20], rtol=0, atol=1e-6)
        clear = slow.values[:20].diff().abs() > 1e-6  # neighbours whose order rounding cannot change
        if bool(clear.all()):
            assert torch.equal(numbers, slow.indices[:20])
    if spread == 1.0:
        assert max(looked) < 300, "few are looked at twice"
    assert len(nearest([rows[:5]], vectors[0], 20, lambda n: unit[n] @ unit[0])[0]) == 5


def test_coarse_sums_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit_rows(torch.eye(8) + 0.1)
    truth = torch.nn.functional.normalize(torch.eye(8) + 0.1)
    wrong = torch.zeros(1, 8, dtype=torch.float16)
    wrong[0, :3] = 1.5
    monkeypatch.setattr(torch.nn.functional, "linear", lambda a, b: wrong)
    assert nearest([rows], truth[6], 1, lambda n: truth[n] @ truth[6])[0].tolist() == [6]


# --- the renderer and the commands ----------------------------------------------------------------------------------


def test_the_renderer_gives_the_nearest_photos_with_scores(folder: Path, tmp_path: Path) -> None:
    index(folder, tmp_path / "lib")
    options = RendererOptions("thumbnails", extra={"library": tmp_path / "lib", "encoder": Thumbnails()})
    renderer = get("retrieval")(None, options)
    a, b = embedding_of(folder / "0.png", folder / "sub" / "5.png").vectors
    together = renderer.render(torch.stack([a, a, b]), [0, 1, 0], renderer.capabilities.native, RenderOptions())
    alone = renderer.render(b[None], [7], renderer.capabilities.native, RenderOptions())
    said = [p.info["pops"]["found"] for p in together]
    assert [Path(s["path"]).name for s in said][::2] == ["0.png", "5.png"]
    assert [s["rank"] for s in said] == [0, 1, 0] and said[1]["score"] < 0.9
    assert said[0]["score"] == pytest.approx(1, abs=1e-5)
    assert np.array_equal(np.asarray(together[2]), np.asarray(alone[0]))
    assert np.array_equal(np.asarray(together[0]), np.asarray(Image.open(folder / "0.png")))
    assert renderer.render(a[None], [0], (10, 20), RenderOptions())[0].size == (20, 10)
    with pytest.raises(ConfigError, match="holds 6 different photos, 7 were asked for"):
        renderer.render(a[None].expand(7, -1), range(7), renderer.capabilities.native, RenderOptions())
    (folder / "0.png").unlink()
    with pytest.raises(PhotoError, match="0.png is no longer there; bring .* up to date: pops index"):
        renderer.render(a[None], [0], renderer.capabilities.native, RenderOptions())


def test_the_renderer_needs_a_library_of_its_encoder(folder: Path, tmp_path: Path) -> None:
    index(folder, tmp_path / "lib")
    with pytest.raises(ConfigError, match="needs a library: --library"):
        get("retrieval")(None, RendererOptions("thumbnails"))
    extra = {"library": tmp_path / "lib", "encoder": Thumbnails(fingerprint="two")}
    with pytest.raises(SpaceError, match="made by another encoder"):
        get("retrieval")(None, RendererOptions("thumbnails", extra=extra))


def test_index_search_and_run_from_the_command_line(
    random_model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Any:
        return CliRunner().invoke(app, [*words, "-m", str(random_model)])

    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "readme.md").touch()
    done = call("index", "photos", "-o", "lib")
    assert done.exit_code == 0 and done.stdout == "lib: 6 photos (6 new, 1 skipped, 1 of other kinds)\n"
    assert done.stderr.count("\n") == 1 and "broken.png" in done.stderr
    told = json.loads(call("index", "photos", "-o", "lib", "--json").stdout)
    assert told["unchanged"] == 6 and [Path(s["path"]).name for s in told["skipped"]] == ["broken.png"]
    assert call("index", "photos", "-o", "lib", "-q").stdout == ""

    lines = call("search", "photos/1.png", "--library", "lib", "-k", "3").stdout.splitlines()
    assert len(lines) == 3 and lines[0] == f"1.0000  {folder / '1.png'}"
    how = ["1*photos/1.png", "--renderer", "retrieval", "--library", "lib", "-n", "2", "-o", "near.png"]
    told = json.loads(call("run", *how, "--json").stdout)
    assert told["outputs"] == ["near-0.png", "near-1.png"] and told["found"][0]["path"] == str(folder / "1.png")
    assert told["found"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert np.array_equal(np.asarray(Image.open("near-0.png")), np.asarray(Image.open(folder / "1.png")))
    again = CliRunner().invoke(app, ["run", "near-1.png", "--trust", "-o", "again.png"])
    assert again.exit_code == 0 and Path("again.png").read_bytes() == Path("near-1.png").read_bytes()

    (folder / "1.png").unlink()
    listed = json.loads(call("search", "photos/sub/4.png", "-l", "lib", "--json").stdout)["matches"]
    assert {Path(m["path"]).name: m["there"] for m in listed}["1.png"] is False
    none = call("run", "photos/0.png", "--renderer", "retrieval", "-o", "x.png")
    assert none.exit_code == 2 and "needs a library" in none.stderr
    other = CliRunner().invoke(app, ["search", "photos/0.png", "-l", "lib"])  # tiny has another space
    assert other.exit_code == 2 and "made by another encoder" in other.stderr


def test_the_same_from_python(random_model: Path, folder: Path, tmp_path: Path) -> None:
    p = pops.load(random_model, library=tmp_path / "lib")
    index_folder(folder, tmp_path / "lib", p.space, side=512)
    e = p.embed([folder / "2.png", folder / "0.png"])
    pictures = p.render(e, num_images=2)
    assert [Path(i.info["pops"]["found"]["path"]).name for i in pictures][::2] == ["2.png", "0.png"]
    other = pops.load(random_model)
    again = other.render(e[0], renderer="retrieval", library=tmp_path / "lib")
    assert again[0].info["pops"]["found"]["path"] == str(folder / "2.png")
    assert again[0].info["pops"]["loading"]["library"] == str(tmp_path / "lib")
