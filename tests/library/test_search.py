"""Searching a library: by plain words, under conditions, and by the index of a large library."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, TiffImagePlugin
from typer.testing import CliRunner

from library.test_library import Thumbnails, embedding_of, index, photo
from pops.cli.main import app
from pops.embedding import Embedding
from pops.errors import ConfigError, OperandError
from pops.images import date_taken
from pops.library import About, Library, Where
from pops.library import rows as rowing
from pops.library.nearest import nearest
from pops.library.rows import INDEX, SEARCH
from pops.library.scan import Stamp
from pops.library.store import _schema
from pops.library.values import Entry
from pops.space import Space

pytest.importorskip("lancedb")
EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "objects"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(6):
        photo(tmp_path / "photos" / f"{'sub/' if i > 3 else ''}{i}.png", i)
    return tmp_path / "photos"


def call(*words: Any) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


# --- plain words ---------------------------------------------------------------------------------------------------


def test_plain_words_find_what_they_say_among_the_examples(tmp_path: Path) -> None:
    assert call("index", EXAMPLES, "-o", tmp_path / "lib").exit_code == 0
    for words in ("teapot", "a rabbit", "coffee machine"):
        done = call("search", words, "-l", tmp_path / "lib", "-k", 3)
        name = words.removeprefix("a ").replace(" ", "_")
        assert done.exit_code == 0 and done.stdout.splitlines()[0].endswith(f"/{name}.png"), done.output
        assert (
            done.stderr.count("\n") == 1
            and f'read as plain words; for the prior\'s image of them write text("{words}")' in done.stderr
        )
    told = json.loads(call("search", "teapot", "-l", tmp_path / "lib", "--json").stdout)
    assert told["words"] == "teapot" and told["search"] == "exact" and Path(told["matches"][0]["path"]).stem == "teapot"
    assert call("search", "teapot", "-l", tmp_path / "lib", "-q").stderr == ""
    by_prior = json.loads(call("search", 'text("teapot")', "-l", tmp_path / "lib", "--json").stdout)
    assert by_prior["words"] is None and by_prior["matches"][0]["score"] != told["matches"][0]["score"]


def test_faulty_expressions_and_long_words_are_one_line(random_model: Path, folder: Path, tmp_path: Path) -> None:
    how = ("-l", tmp_path / "lib", "-m", random_model)
    assert call("index", folder, "-o", tmp_path / "lib", "-m", random_model).exit_code == 0
    done = call("search", "texturing(a.png, b.png", *how)
    assert done.exit_code == 2 and "bracket" in done.stderr
    done = call("search", "nothere.png", *how)
    assert done.exit_code == 2 and "there is no file nothere.png" in done.stderr
    done = call("search", " ".join(["very"] * 200), *how)
    assert done.exit_code == 2 and "use fewer words" in done.stderr and done.stderr.count("\n") == 1


def test_a_model_without_a_text_encoder_is_one_line(random_model: Path, folder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(random_model, tmp_path / "bare")
    shutil.rmtree(bare / "text_encoder")
    assert call("index", folder, "-o", tmp_path / "lib", "-m", random_model).exit_code == 0
    done = call("search", "a red teapot", "-l", tmp_path / "lib", "-m", bare)
    assert done.exit_code == 2 and "text_encoder" in done.stderr and done.stderr.count("\n") == 1


def test_words_are_embedded_whole_or_refused(random_model: Path) -> None:
    import pops

    p = pops.load(random_model)
    e = p.embed_words(["red", "blue"])
    assert (e.n, e.space) == (2, p.space.id)
    torch.testing.assert_close(e.vectors, p.space.encode_texts(["red", "blue"]).embeds)
    with pytest.raises(OperandError, match="use fewer words"):
        p.embed_words("very " * 200)
    assert isinstance(p.space, Space)


# --- dates ---------------------------------------------------------------------------------------------------------


def dated(path: Path, seed: int, original: str = "", changed: str = "") -> Path:
    photo(path, seed)
    exif = Image.Exif()
    if original:
        exif[0x8769] = {0x9003: original}
    if changed:
        exif[0x0132] = changed
    Image.open(path).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif"])
def test_a_photos_own_date(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    assert date_taken(dated(path, 1, "2019:07:04 10:11:12", "2020:01:01 00:00:00")) == "2019-07-04T10:11:12"
    assert date_taken(dated(path, 1, "0000:00:00 00:00:00", "2020:01:01 00:00:00")) == "2020-01-01T00:00:00"
    assert date_taken(dated(path, 1, "2019:13:45 10:11:12")) == ""
    assert date_taken(dated(path, 1, "yesterday")) == ""
    assert date_taken(photo(path, 1)) == ""


def test_the_date_of_a_tiff_and_of_damaged_exif(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x8769] = {0x9003: "2018:02:03 04:05:06"}
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tif", tiffinfo=tags)
    assert date_taken(tmp_path / "a.tif") == "2018-02-03T04:05:06"
    Image.new("RGB", (8, 8)).save(tmp_path / "b.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(40))
    assert date_taken(tmp_path / "b.jpg") == ""


def named(matches: Sequence[Any]) -> list[str]:
    return sorted(Path(m.path).name for m in matches)


def test_conditions_come_before_the_nearest(folder: Path, tmp_path: Path) -> None:
    for i, month in enumerate((1, 5, 5, 12)):
        dated(folder / f"{i}.png", i, f"2024:{month:02}:31 18:30:00")
    old = datetime(2020, 6, 30, 23, 59, 59).timestamp()
    for i in (4, 5):
        os.utime(folder / "sub" / f"{i}.png", (old, old))
    shutil.copy(folder / "0.png", folder / "sub" / "copy.png")
    index(folder, tmp_path / "lib")
    library = Library.open(tmp_path / "lib")

    def met(count: int = 10, **conditions: Any) -> list[str]:
        return named(library.search(embedding_of(folder / "0.png"), count, Where(**conditions))[0])

    assert met(since="2024-05") == ["1.png", "2.png", "3.png"]
    assert met(since="2024-05-31", until="2024-05-31") == ["1.png", "2.png"]
    assert met(since="2024-05-31 18:31") == ["3.png"]
    assert met(until="2023") == ["4.png", "5.png"], "the file's date where the photo has none"
    assert met(until="2020-06-29") == []
    assert met(under=(str(folder / "sub"),)) == ["4.png", "5.png", "copy.png"]
    assert met(under=(str(folder / "su"),)) == []
    assert met(exclude=("sub",)) == ["0.png", "1.png", "2.png", "3.png"] == met(exclude=("sub/*",))
    assert met(exclude=("[0-3].png", "copy*")) == ["4.png", "5.png"]
    assert len(met(2, until="2024-06")) == 2 and met(1, since="2024-12") == ["3.png"]
    best = library.search(embedding_of(folder / "0.png"), 1, Where(under=(str(folder / "sub"),)))[0][0]
    assert (Path(best.path).name, best.copies) == ("copy.png", ()), "of one content, only the files that meet them"
    dates = {Path(m.path).name: (m.date, m.date_from) for m in library.search(embedding_of(folder / "0.png"))[0]}
    assert dates["1.png"] == ("2024-05-31T18:30:00", "photo") and dates["4.png"] == ("2020-06-30T23:59:59", "file")


def test_under_takes_links_and_folders_as_they_are_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(folder, tmp_path / "lib")
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    library = Library.open("lib")
    for under in ("link/sub", "photos/sub/", "./photos/../photos/sub"):
        got = library.search(embedding_of(folder / "0.png"), 10, Where(under=(under,)))[0]
        assert named(got) == ["4.png", "5.png"], under
    got = library.search(embedding_of(folder / "0.png"), 10, Where(under=("link/sub", "link/sub")))[0]
    assert len(got) == 2


@pytest.mark.parametrize("date", ["2024-13", "24-05-01", "yesterday", "2024-05-31T18", "2024-02-30", "2024/05/01"])
def test_what_is_no_date_is_one_line(date: str) -> None:
    with pytest.raises(ConfigError, match="until takes a date such as 2024-05-31, 2024-05 or 2024, got"):
        Where(until=date)


def test_conditions_from_the_command_line(random_model: Path, folder: Path, tmp_path: Path) -> None:
    how = ("-l", tmp_path / "lib", "-m", random_model)
    assert call("index", folder, "-o", tmp_path / "lib", "-m", random_model).exit_code == 0
    done = call("search", folder / "0.png", *how, "--under", folder / "sub", "--exclude", "5.png", "-k", 9)
    assert done.stdout.split("\n", 1)[0].endswith("4.png") and done.stdout.count("\n") == 1
    done = call("search", folder / "0.png", *how, "--until", "1999", "--json")
    assert json.loads(done.stdout)["matches"] == []
    done = call("search", folder / "0.png", *how, "--until", "1999")
    assert done.exit_code == 0 and done.stdout == "" and "no photo of" in done.stderr and "--until 1999" in done.stderr
    done = call("search", folder / "0.png", *how, "--since", "tomorrow")
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and "takes a date such as" in done.stderr
    done = call("search", folder / "0.png", *how, "--since", "2025", "--until", "2024-05")
    assert done.exit_code == 2 and "since 2025 is later than until 2024-05" in done.stderr
    told = json.loads(call("search", folder / "0.png", *how, "--json").stdout)
    assert told["matches"][0]["date_from"] == "file" and told["matches"][0]["date"][:2] == "20"


# --- libraries made before dates were kept -------------------------------------------------------------------------


def made_before(lib: Path) -> None:
    """Turns a library into one that an earlier pops made: no dates, and rows without their contents' names."""
    import pyarrow as pa
    from safetensors.torch import save_file

    library = Library.open(lib)
    schema = pa.schema([field for field in _schema("files", 1) if field.name != "taken"])
    columns = library._files.to_arrow().to_pydict()
    library._files.add(pa.table({n: columns[n] for n in schema.names}, schema=schema), mode="overwrite")
    library = Library.open(lib)
    rows = library._rows
    tensors = {"rows": rows.blocks[0].clone(), "ids": rows.ids.clone()}
    save_file(tensors, lib / SEARCH, metadata={"versions": library._versions()})
    assert "taken" not in library._files.schema.names


def test_a_library_of_before_opens_and_gets_its_dates(folder: Path, tmp_path: Path) -> None:
    dated(folder / "1.png", 1, "2018:01:02 03:04:05")
    index(folder, tmp_path / "lib")
    made_before(tmp_path / "lib")

    def met(**conditions: Any) -> list[str]:
        library = Library.open(tmp_path / "lib")
        return named(library.search(embedding_of(folder / "1.png"), 10, Where(**conditions))[0])

    assert len(met()) == 6 and met(until="2018") == [], "the files' dates until it is indexed again"
    encoder = Thumbnails()
    report = index(folder, tmp_path / "lib", encoder)
    assert (report.unchanged, report.new, report.changed, encoder.seen) == (6, 0, 0, [])
    assert met(until="2018") == ["1.png"]
    assert not Library.open(tmp_path / "lib").stale


# --- the index of a large library ----------------------------------------------------------------------------------

DIM = 96


def vectors(count: int, seed: int = 0) -> torch.Tensor:
    gen = torch.Generator().manual_seed(seed)
    basis = torch.randn(24, DIM, generator=torch.Generator().manual_seed(9))
    return torch.randn(count, 24, generator=gen) @ basis + 0.3 * torch.randn(count, DIM, generator=gen)


def digest(i: int) -> str:
    return f"{i:064x}"


def entries(numbers: Sequence[int]) -> dict[str, Entry]:
    return {f"/{'even' if i % 2 == 0 else 'odd'}/{i}.png": Entry(Stamp(1, i), digest(i), taken="") for i in numbers}


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """A library of 3000 photos where 500 are many."""
    monkeypatch.setattr(rowing, "EXACT_MOST", 500)
    monkeypatch.setattr(rowing, "COMPARED", 100)
    library = Library.create(tmp_path / "lib", About("s", DIM, "f", "squash", 8))
    library.commit(entries(range(3000)), {digest(i): v for i, v in enumerate(vectors(3000))})
    library.tidy()
    return Library.open(tmp_path / "lib")


def numbers(library: Library, query: torch.Tensor, count: int = 10, where: Where | None = None) -> list[list[int]]:
    found = library.search(Embedding(query, "s"), count, *([where] if where else []))
    return [[int(Path(m.path).stem) for m in matches] for matches in found]


def slow(rows: torch.Tensor, query: torch.Tensor, count: int = 10) -> list[list[int]]:
    unit = torch.nn.functional.normalize
    return (unit(query) @ unit(rows).T).topk(count).indices.tolist()


def recall(found: list[list[int]], truth: list[list[int]]) -> float:
    return sum(len(set(f) & set(t)) for f, t in zip(found, truth, strict=True)) / sum(map(len, truth))


def test_a_large_library_is_searched_by_its_index(large: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = vectors(3000)
    near = rows[:30] + 0.3 * vectors(30, seed=1)
    between = rows[100:130] + rows[200:230]
    compared = []
    real = nearest
    monkeypatch.setattr(
        rowing, "nearest", lambda blocks, *rest: (compared.append(len(blocks[0])), real(blocks, *rest))[1]
    )
    for query in (near, between):
        assert recall(numbers(large, query), slow(rows, query)) >= 0.99
    assert set(compared) == {200}
    method = large.method(10)
    assert (method.search, method.settings, method.told) == ("principal axes", {"axes": 64, "compared": 200}, "")
    scores = [m.score for m in large.search(Embedding(rows[:1], "s"), 5)[0]]
    assert scores[0] == pytest.approx(1, abs=1e-6) and scores == sorted(scores, reverse=True)
    assert large.method(2999).search == "exact" and len(numbers(large, rows[:1], 2999)[0]) == 2999


def test_what_was_added_and_removed_after_the_index_was_made(large: Library) -> None:
    rows = vectors(3000)
    new = vectors(5, seed=5)
    kept = [i for i in range(3000) if i not in (7, 8)]
    writer = Library.open(large.path)
    writer.commit(entries([*kept, *range(3000, 3005)]), {digest(3000 + i): v for i, v in enumerate(new)})
    for library in (large, Library.open(large.path)):
        assert library.method().search == "principal axes"
        assert [n[0] for n in numbers(library, new)] == list(range(3000, 3005))
        assert {7, 8}.isdisjoint(n for found in numbers(library, rows[7:9], 50) for n in found)
        now = torch.cat([rows, new])
        now[7:9] = -rows[:1]
        query = rows[:20] + new[:1]
        assert recall(numbers(library, query), slow(now, query)) >= 0.99
    writer.tidy()
    assert not writer.stale and [n[0] for n in numbers(Library.open(large.path), new)] == list(range(3000, 3005))
    assert len(large.search(Embedding(new[:1], "s"), 2)[0]) == 2, "a reader that was open sees it, too"


def test_conditions_hold_with_the_index(large: Library) -> None:
    rows = vectors(3000)
    odd = Where(under=("/odd",))
    for where, of in ((odd, range(1, 3000, 2)), (Where(exclude=("[0-9]*[0-8].png", "[0-8].png")), range(9, 3000, 10))):
        picked = [[list(of)[i] for i in row] for row in slow(rows[of.start :: of.step], rows[:20])]
        found = numbers(large, rows[:20], where=where)
        assert all(len(f) == 10 for f in found) and recall(found, picked) >= 0.99
    few = Where(exclude=("*[0-9][0-9]*.png",))
    assert sorted(numbers(large, rows[:1], where=few)[0]) == list(range(10)), "all that meet them, far as they are"
    assert numbers(large, rows[:1], where=Where(under=("/nowhere",))) == [[]]


@pytest.mark.parametrize("how", ["gone", "empty", "cut", "of other rows"])
def test_without_its_index_a_large_library_is_searched_exactly(large: Library, how: str) -> None:
    file = large.path / INDEX
    content = file.read_bytes()
    if how == "of other rows":
        file.write_bytes(content.replace(large._versions().encode(), b"9" * len(large._versions())))
    elif how == "gone":
        file.unlink()
    else:
        file.write_bytes(content[: 0 if how == "empty" else -9])
    library = Library.open(large.path)
    rows = vectors(3000)
    assert numbers(library, rows[:20]) == slow(rows, rows[:20])
    method = library.method()
    assert method.search == "exact" and "\n" not in method.told
    assert "has no index or a damaged one, so all 3000 photos were compared; to make it: pops index" in method.told
    assert library.stale, "so that pops index makes it again"
    library.tidy()
    assert Library.open(large.path).method().search == "principal axes"


def test_a_library_that_became_small_has_no_index(large: Library) -> None:
    large.commit(entries(range(400)), {})
    large.tidy()
    assert not (large.path / INDEX).exists() and large.method().search == "exact" and large.method().told == ""


def test_pops_index_makes_the_index_and_a_missing_one_is_told(
    random_model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rowing, "EXACT_MOST", 3)
    monkeypatch.setattr(rowing, "COMPARED", -6)  # with -k 1, four of the six
    lib = tmp_path / "lib"
    words = ("search", folder / "0.png", "-l", lib, "-m", random_model, "-k", 1)
    assert call("index", folder, "-o", lib, "-m", random_model).exit_code == 0
    told = json.loads(call(*words, "--json").stdout)
    assert told["search"] == "principal axes" and told["settings"]["compared"] == 4 and told["told"] == ""
    assert told["matches"][0]["path"] == str(folder / "0.png")
    (lib / INDEX).write_bytes(b"")
    done = call(*words)
    assert (
        done.stdout.endswith("0.png\n") and done.stderr.count("\n") == 1 and "no index or a damaged one" in done.stderr
    )
    assert json.loads(call(*words, "--json").stdout)["search"] == "exact"
    render = ("run", folder / "0.png", "--renderer", "retrieval", "--library", lib, "-m", random_model)
    done = call(*render, "-o", tmp_path / "near.png")
    assert done.exit_code == 0 and "has no index or a damaged one" in done.stderr
    assert call("index", folder, "-o", lib, "-m", random_model).exit_code == 0
    assert json.loads(call(*words, "--json").stdout)["search"] == "principal axes"
