"""The int8 layers of our own against whole-number arithmetic, and against the layers they replace."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from pops.prior import int8, linear

features = pytest.importorskip("llvmlite.binding").get_host_cpu_features()
if sys.platform != "linux" or not features.get("avx512vnni"):
    pytest.skip("the kernel is for Linux and CPUs with AVX-512 VNNI", allow_module_level=True)

SHAPES = [(1, 1), (31, 17), (32, 16), (33, 100), (95, 64), (200, 260)]


def test_it_is_there_where_the_cpu_has_the_instruction() -> None:
    assert int8.available(), "a broken kernel must not pass for a CPU without it"


def whole(n: int, k: int, rows: int, *, fine: bool) -> tuple[Tensor, Tensor]:
    """Weights, and activations with both ends of their range in every row, so that a step is 1."""
    gen = torch.Generator().manual_seed(n + k + rows)
    q = torch.randint(-127, 128, (n, k), generator=gen, dtype=torch.int8)
    low, high = (-32639, 32639) if fine else (0, 255)
    x = torch.randint(low, high + 1, (rows, k), generator=gen)
    x[:, 0] = high
    x[:, -1] = low if k > 1 else high
    return q, x


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_products_of_whole_numbers_are_exact(n: int, k: int, fine: bool) -> None:
    for rows in [*range(1, 18), 25, 40]:
        q, x = whole(n, k, rows, fine=fine)
        if k == 1 and not fine:
            continue  # one value has no range
        scale, bias = torch.arange(1.0, n + 1), torch.arange(n) * 0.5
        y = int8.Product(q, scale, bias, fine)(x.float())
        truth = (x @ q.long().T).double() * scale.double() + bias.double()
        size = (x.abs() @ q.long().abs().T).double() * scale.double() + 255 * 128 * scale.double()
        assert bool(((y - truth).abs() <= 4e-7 * size).all()), (rows, (y - truth).abs().max())


def test_the_largest_sums_fit() -> None:
    x = torch.full((2, 8192), 255.0)
    x[:, 0] = 0
    for sign in (1, -1):
        q = torch.full((32, 8192), sign * 127, dtype=torch.int8)
        y = int8.Product(q, torch.ones(32), torch.zeros(32), False)(x)
        torch.testing.assert_close(y, torch.full((2, 32), sign * 127.0 * 255 * 8191), rtol=1e-6, atol=0)


@pytest.mark.parametrize("fine", [False, True])
def test_no_further_from_float32_than_onednn(fine: bool) -> None:
    if not linear._multiplies():
        pytest.skip("oneDNN multiplies no whole numbers here")
    gen = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(512, 2048, generator=gen) * 0.02, torch.randn(512, generator=gen)
    own, old = (make(weight, bias, fine) for make in (linear._int8_own, linear._int8))
    for rows in (1, 3, 6, 14):
        x = torch.randn(rows, 2048, generator=gen)
        for gelu in (False, True):
            truth = linear._plain(weight, bias)(x, gelu)
            error, before = ((layer(x, gelu) - truth).norm() / truth.norm() for layer in (own, old))
            assert error <= before * 1.01
            assert error < (0.006 if fine else 0.011)


def test_rows_do_not_depend_on_their_neighbours() -> None:
    q, x = whole(96, 64, 17, fine=True)
    run = int8.Product(q, torch.ones(96), torch.zeros(96), True)
    together, alone = run(x.float()), torch.cat([run(row[None].float()) for row in x])
    assert torch.equal(together, alone)


def test_strided_rows_no_rows_and_rows_of_zeros() -> None:
    q, x = whole(64, 32, 6, fine=False)
    run = int8.Product(q, torch.ones(64), torch.ones(64), False)
    wide = torch.cat([x, x], 1).float()
    assert torch.equal(run(wide[:, :32]), run(x.float()))
    assert run(x[:0].float()).shape == (0, 64)
    torch.testing.assert_close(run(torch.zeros(3, 32)), torch.ones(3, 64))


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_stays_none_in_its_row(fine: bool, bad: float) -> None:
    q, x = whole(64, 48, 3, fine=fine)
    broken = x.float()
    broken[1, 20] = bad
    run = int8.Product(q, torch.ones(64), torch.zeros(64), fine)
    y = run(broken)
    assert bool(y[1].isnan().all())
    assert torch.equal(y[[0, 2]], run(x.float())[[0, 2]])


def test_two_threads_at_once() -> None:
    q, x = whole(512, 1024, 12, fine=True)
    run = int8.Product(q, torch.ones(512), torch.zeros(512), True)
    wanted = [run(x[i : i + 6].float()) for i in (0, 6)]

    def again(i: int) -> bool:
        return all(torch.equal(run(x[6 * i : 6 * i + 6].float()), wanted[i]) for _ in range(200))

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(again, (0, 1)))


def test_one_thread_or_many_give_the_same() -> None:
    q, x = whole(300, 256, 5, fine=False)
    run = int8.Product(q, torch.ones(300), torch.zeros(300), False)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(run(x.float()))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_without_numba_the_engine_takes_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    int8.available.cache_clear()
    try:
        assert not int8.available()
        layer = linear.linear(torch.eye(16), torch.zeros(16), "int8", torch.device("cpu"))
        torch.testing.assert_close(layer(torch.eye(16), False), torch.eye(16), rtol=0, atol=0.01)
    finally:
        monkeypatch.undo()
        int8.available.cache_clear()
