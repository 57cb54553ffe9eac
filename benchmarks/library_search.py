"""Search in libraries of many photos: exact and by pops' index, in one run; also numpy's product and LanceDB's indices.

    python -m benchmarks.library_search                       100,000 and 1,000,000 vectors: 10 minutes, 15 GB of disk
    python -m benchmarks.library_search --counts 100000       a minute, 2 GB of disk
    python -m benchmarks.library_search --lance rq,pq,hnsw    LanceDB's indices, too; they take long to build

Vectors of 1280 numbers in 4000 clusters of unequal size, which spread in 256 directions, with noise in all others.
Queries of two kinds: near (a vector with noise) and between (the middle of two vectors, as composed queries are). All
ways take turns, query by query; recall@10 is compared with the exact search. Memory is what a process holds at most,
files that it has mapped included, beyond its imports.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("LANCEDB_LOG", "off")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line sets it
import lancedb
import numpy as np
import torch
from lancedb.index import HnswSq, IvfPq, IvfRq

from benchmarks.machine import described
from benchmarks.memory import resident_peak
from pops.embedding import Embedding
from pops.library import About, Library
from pops.library.rows import INDEX, SEARCH, read_rows, write_index
from pops.library.scan import Stamp
from pops.library.values import Entry

TOP, CHUNK = 10, 10_000
CLUSTERS, DIRECTIONS = 4000, 256
NUMPY_MOST = 200_000  # vectors that numpy's product holds in float32
LANCE: dict[str, Callable[[int], Any]] = {  # by number of partitions
    "rq": lambda n: IvfRq(distance_type="cosine", num_partitions=n, max_iterations=10, sample_rate=64),
    "pq": lambda n: IvfPq(
        distance_type="cosine", num_partitions=n, num_sub_vectors=160, max_iterations=10, sample_rate=64
    ),
    "hnsw": lambda n: HnswSq(distance_type="cosine", num_partitions=1, m=16, ef_construction=100),
}
REFINE = 20  # of LanceDB: how many times as many are compared in full
Search = Callable[[np.ndarray], list[str]]
COLUMNS = {
    "near_ms": "near, ms", "between_ms": "between, ms", "between_work_ms": "processor, ms",
    "near_recall": "recall@10 near", "between_recall": "between",
    "made_s": "made in, s", "made_gb": "memory to make it, GB", "search_gb": "to search, GB", "disk_gb": "on disk, GB",
}  # fmt: skip


def chunks(count: int, dim: int) -> Iterator[np.ndarray]:
    """Draws the vectors, un-normalised float32 [n, dim] at a time; the same for every count."""
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((DIRECTIONS, dim), dtype=np.float32) / dim**0.5
    spread = np.arange(1, DIRECTIONS + 1, dtype=np.float32) ** -0.4
    spread /= np.linalg.norm(spread)
    mean = rng.standard_normal(dim, dtype=np.float32) / dim**0.5
    centres = spread * rng.standard_normal((CLUSTERS, DIRECTIONS), dtype=np.float32)
    shares = 1 / np.arange(1, CLUSTERS + 1) ** 0.5
    for start in range(0, count, CHUNK):
        rng, n = np.random.default_rng([1, start]), min(CHUNK, count - start)
        inner = centres[rng.choice(CLUSTERS, n, p=shares / shares.sum())]
        inner = inner + 0.7 * spread * rng.standard_normal((n, DIRECTIONS), dtype=np.float32)
        yield mean + inner @ basis + 0.3 / dim**0.5 * rng.standard_normal((n, dim), dtype=np.float32)


def queries(rows: np.ndarray, each: int) -> dict[str, np.ndarray]:
    """Draws queries from some of the vectors: near one of them, and in the middle of two."""
    rng = np.random.default_rng(2)
    noise = 0.3 * np.linalg.norm(rows[:each], axis=1, keepdims=True) / rows.shape[1] ** 0.5
    near = rows[:each] + noise * rng.standard_normal((each, rows.shape[1]), dtype=np.float32)
    return {"near": near, "between": (rows[each : 2 * each] + rows[2 * each : 3 * each]) / 2}


def fill(where: Path, count: int, dim: int) -> dict[str, float]:
    """Makes a library without its search's files: in a process of its own, as what follows."""
    library = Library.create(where, About("bench", dim, "bench", "squash", 512))
    names = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(count)]
    for i, rows in enumerate(chunks(count, dim)):
        library.commit({}, dict(zip(names[i * CHUNK :], torch.from_numpy(rows), strict=False)))
    library.commit({f"/{i}.png": Entry(Stamp(1, 1), name, taken="") for i, name in enumerate(names)}, {})
    return {}


def tidied(where: Path) -> dict[str, float]:
    """Tidies the library: what `pops index` does at its end."""
    library, before, begun = Library.open(where), resident_peak(), time.perf_counter()
    library.tidy()
    return {"made_s": time.perf_counter() - begun, "made_gb": _gb(resident_peak(), before)}


def indexed(where: Path) -> dict[str, float]:
    """Makes pops' index, whatever the library's size."""
    torch.ones(64, 64) @ torch.ones(64, 64)  # threads and their buffers
    rows, before, begun = read_rows(where), resident_peak(), time.perf_counter()
    assert rows is not None
    write_index(where, rows)
    disk = (where / INDEX).stat().st_size / 1e9
    return {"made_s": time.perf_counter() - begun, "made_gb": _gb(resident_peak(), before), "disk_gb": disk}


def searched(where: Path, dim: int, index: bool) -> dict[str, float]:
    """Opens the library and searches a few times."""
    before, begun = resident_peak(), time.perf_counter()
    search = by_pops(where, index=index)
    search(np.ones(dim, dtype=np.float32))
    first = time.perf_counter() - begun
    for rows in chunks(3, dim):
        for row in rows:
            search(row)
    return {"first_s": first, "search_gb": _gb(resident_peak(), before)}


def _gb(after: int | None, before: int | None) -> float:
    return ((after or 0) - (before or 0)) / 1e9


def alone(job: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Runs a job in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(job, arguments)


def by_pops(where: Path, *, index: bool) -> Search:
    library = Library.open(where)
    if not index:
        rows = read_rows(where)
        assert rows is not None
        library.__dict__["_rows"] = replace(rows, axes=None, codes=[])
    return lambda q: [m.path for m in library.search(Embedding(torch.from_numpy(q)[None], "bench"), TOP)[0]]


def by_numpy(count: int, dim: int) -> Search:
    unit = np.concatenate(list(chunks(count, dim)))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)

    def search(q: np.ndarray) -> list[str]:
        scores = unit @ (q / np.linalg.norm(q))
        near = np.argpartition(-scores, TOP)[:TOP]
        return [f"/{i}.png" for i in near[np.argsort(-scores[near])]]

    return search


def by_lance(where: Path, kind: str, count: int) -> tuple[Search, dict[str, float]]:
    """Builds one of LanceDB's indices on the library's table."""
    table = lancedb.connect(str(where)).open_table("vectors")
    parts, begun = max(1, count // 1000), time.perf_counter()
    table.create_index("vector", config=LANCE[kind](parts), replace=True)
    files = [p for p in (where / "vectors.lance" / "_indices").rglob("*") if p.is_file() and p.stat().st_mtime > 0]
    names = {hashlib.sha256(str(i).encode()).hexdigest(): f"/{i}.png" for i in range(count)}

    def search(q: np.ndarray) -> list[str]:
        query = table.search(q).distance_type("cosine").limit(TOP).select(["digest", "_distance"])
        found = query.nprobes(max(1, parts // 5)).refine_factor(REFINE).to_arrow()["digest"]
        return [names[digest] for digest in found.to_pylist()]

    size = sum(p.stat().st_size for p in files) / 1e9
    return search, {"made_s": time.perf_counter() - begun, "disk_gb": size}


def measure(ways: dict[str, Search], asked: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Times every way, in turn: the median in ms, of the clock and of the processor's work in all threads, and recall
    against the first way, by kind of query.
    """
    figures: dict[str, dict[str, float]] = {name: {} for name in ways}
    for kind, rows in asked.items():
        times: dict[str, list[float]] = {name: [] for name in ways}
        work: dict[str, list[float]] = {name: [] for name in ways}
        hits: dict[str, list[float]] = {name: [] for name in ways}
        for search in ways.values():
            search(rows[0])
        for row in rows:
            truth: set[str] = set()
            for name, search in ways.items():
                begun, busy = time.perf_counter(), time.process_time()
                found = search(row)
                times[name].append(time.perf_counter() - begun)
                work[name].append(time.process_time() - busy)
                truth = truth or set(found)
                hits[name].append(len(truth & set(found)) / TOP)
        for name in ways:
            figures[name] |= {
                f"{kind}_ms": 1e3 * statistics.median(times[name]),
                f"{kind}_best_ms": 1e3 * min(times[name]),
                f"{kind}_work_ms": 1e3 * statistics.median(work[name]),
                f"{kind}_recall": statistics.mean(hits[name]),
            }
    return figures


def run(folder: Path, count: int, dim: int, each: int, lance: list[str]) -> dict[str, dict[str, float]]:
    """Measures all ways at one size."""
    where = folder / f"library-{count}"
    alone(fill, where, count, dim)
    made = {"exact": alone(tidied, where), "index": alone(indexed, where)}
    made["exact"]["disk_gb"] = (where / SEARCH).stat().st_size / 1e9
    for name in made:
        made[name] |= alone(searched, where, dim, name == "index")
    asked = queries(next(chunks(count, dim)), each)
    ways = {"exact": by_pops(where, index=False), "index": by_pops(where, index=True)}
    if count <= NUMPY_MOST:
        ways["numpy float32"] = by_numpy(count, dim)
    figures = measure(ways, asked)
    exact = {row.tobytes(): ways["exact"](row) for rows in asked.values() for row in rows}  # the table changes below
    for kind in lance:
        search, built = by_lance(where, kind, count)
        turns: dict[str, Search] = {"exact": lambda q: exact[q.tobytes()], kind: search}
        figures[f"LanceDB {kind}"] = measure(turns, asked)[kind]
        made[f"LanceDB {kind}"] = built
    return {name: {**each, **made.get(name, {})} for name, each in figures.items()}


def table(report: dict[int, dict[str, dict[str, float]]]) -> str:
    """Returns the figures as a Markdown table."""
    lines = ["| photos | search | " + " | ".join(COLUMNS.values()) + " |", "|---" * (2 + len(COLUMNS)) + "|"]
    for count, ways in report.items():
        for name, figures in ways.items():
            cells = [_cell(key, figures.get(key)) for key in COLUMNS]
            lines.append(f"| {count:,} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(key: str, value: float | None) -> str:
    form = ".3f" if "recall" in key else ".1f" if key.endswith(("_ms", "_s")) else ".2f"
    return "" if value is None else format(value, form)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="100000,1000000", help="numbers of vectors, with commas")
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--queries", type=int, default=50, help="of each kind")
    parser.add_argument("--lance", default="", help="of rq, pq, hnsw, with commas")
    parser.add_argument("--json", action="store_true", help="print every figure instead of the table")
    args = parser.parse_args()
    machine, report = described(torch.device("cpu")), {}
    with tempfile.TemporaryDirectory(prefix="pops-bench-") as folder:
        for count in (int(number) for number in args.counts.split(",")):
            kinds = [kind for kind in args.lance.split(",") if kind]
            report[count] = run(Path(folder), count, args.dim, args.queries, kinds)
    if args.json:
        print(json.dumps({"machine": machine, "dim": args.dim, "queries": args.queries, "ways": report}, indent=2))
        return
    print(table(report))
    print(f"\n{machine['processor']}, {machine['threads']} threads, load before {machine['load']:.1f}")


if __name__ == "__main__":
    main()
