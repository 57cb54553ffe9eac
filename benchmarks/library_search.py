"""Search in a library of many photos: pops' own, LanceDB's (exact and by an index), and numpy's matrix product.

    python -m benchmarks.library_search                       pops and numpy: a minute, 1.5 GB of disk
    python -m benchmarks.library_search --lance flat,pq,hnsw  LanceDB, too; its indices take minutes to build

Vectors and queries are random in 64 of 1280 dimensions with noise around them, similar to CLIP's embeddings. All ways
take turns, query by query. Recall is of the ten nearest, compared with numpy in float32.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("LANCEDB_LOG", "off")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line sets it
import lancedb
import numpy as np
import torch

from pops.embedding import Embedding
from pops.library import About, Library
from pops.library.scan import Stamp
from pops.library.store import Entry

DIRECTIONS, TOP = 64, 10
INDICES: dict[str, dict[str, Any]] = {
    "pq": {"index_type": "IVF_PQ", "num_partitions": 256, "num_sub_vectors": 160},
    "hnsw": {"index_type": "IVF_HNSW_SQ", "num_partitions": 1},
}
PROBES, REFINE = 20, 10
Search = Callable[[np.ndarray], list[str]]


def vectors(count: int, dim: int, seed: int) -> np.ndarray:
    """Draws vectors [count, dim], float32, un-normalised."""
    basis = np.random.default_rng(0).standard_normal((DIRECTIONS, dim), dtype=np.float32)
    rng = np.random.default_rng(seed)
    inner = rng.standard_normal((count, DIRECTIONS), dtype=np.float32) @ basis / DIRECTIONS**0.5
    return inner + 0.5 * rng.standard_normal((count, dim), dtype=np.float32)


def filled(where: Path, rows: np.ndarray) -> Library:
    """Makes a library of these vectors."""
    library = Library.create(where, About("bench", rows.shape[1], "bench", "squash", 512))
    names = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(len(rows))]
    tensors = torch.from_numpy(rows)
    for start in range(0, len(rows), 10_000):
        library.commit({}, dict(zip(names[start : start + 10_000], tensors[start : start + 10_000], strict=False)))
    library.commit({str(i): Entry(Stamp(1, 1), name) for i, name in enumerate(names)}, {})
    library.tidy()
    return Library.open(where)


def by_pops(library: Library) -> Search:
    return lambda q: [m.path for m in library.search(Embedding(torch.from_numpy(q)[None], "bench"), TOP)[0]]


def by_numpy(rows: np.ndarray) -> Search:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def search(q: np.ndarray) -> list[str]:
        scores = unit @ (q / np.linalg.norm(q))
        near = np.argpartition(-scores, TOP)[:TOP]
        return [str(i) for i in near[np.argsort(-scores[near])]]

    return search


def by_lance(library: Library, kind: str) -> Search:
    table = lancedb.connect(str(library.path)).open_table("vectors")
    numbers = {digest: paths[0] for digest, paths in library.paths.items()}
    if kind != "flat":
        table.create_index(metric="cosine", vector_column_name="vector", replace=True, **INDICES[kind])

    def search(q: np.ndarray) -> list[str]:
        query = table.search(q).distance_type("cosine").limit(TOP).select(["digest", "_distance"])
        if kind == "flat":
            query = query.bypass_vector_index()
        else:
            query = query.nprobes(PROBES).refine_factor(REFINE)
        return [numbers[d] for d in query.to_arrow()["digest"].to_pylist()]

    return search


def measure(ways: dict[str, Search], queries: np.ndarray) -> dict[str, dict[str, float]]:
    """Times each way: milliseconds (median, best), the ratio to numpy in the same round, and recall."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    hits: dict[str, list[float]] = {name: [] for name in ways}
    for search in ways.values():
        search(queries[0])
    for query in queries:
        truth: set[str] = set()
        for name, search in ways.items():
            begun = time.perf_counter()
            found = search(query)
            times[name].append(time.perf_counter() - begun)
            truth = truth or set(found)
            hits[name].append(len(truth & set(found)) / TOP)
    plain = times["numpy"]
    return {
        name: {
            "median_ms": round(1e3 * statistics.median(each), 1),
            "best_ms": round(1e3 * min(each), 1),
            "of_numpy": round(statistics.median(a / b for a, b in zip(each, plain, strict=True)), 3),
            "recall_at_10": round(statistics.mean(hits[name]), 4),
        }
        for name, each in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--lance", default="", help="of flat, pq, hnsw, with commas")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="pops-bench-") as folder:
        rows = vectors(args.count, args.dim, seed=1)
        library = filled(Path(folder) / "library", rows)
        ways = {"numpy": by_numpy(rows)}  # the truth comes first
        begun = time.perf_counter()
        ways["pops"] = by_pops(library)
        first = ways["pops"](rows[0])
        opened = time.perf_counter() - begun
        assert first[0] == "0"
        figures = measure(ways, vectors(args.queries, args.dim, seed=2))
        for kind in filter(None, args.lance.split(",")):
            begun = time.perf_counter()
            search = by_lance(library, kind)
            built = round(time.perf_counter() - begun, 1)
            part = vectors(max(3, args.queries // 3), args.dim, seed=2)
            figures[f"lancedb {kind}"] = measure({"numpy": ways["numpy"], kind: search}, part)[kind] | {
                "built_s": built
            }
    about = {"count": args.count, "dim": args.dim, "queries": args.queries, "threads": torch.get_num_threads()}
    print(json.dumps({**about, "load": load, "first_search_s": round(opened, 2), "ways": figures}, indent=2))


if __name__ == "__main__":
    main()
