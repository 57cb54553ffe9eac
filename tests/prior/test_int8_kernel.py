"""The compiled int8 kernels: layers against exact integers and oneDNN's, attention against torch's."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from pops.prior import linear
from pops.prior.attention import MASKED, causal, within
from pops.prior.int8 import products as int8

features = pytest.importorskip("llvmlite.binding").get_host_cpu_features()
if sys.platform != "linux" or not features.get("avx512vnni"):
    pytest.skip("the kernel is for Linux and CPUs with AVX-512 VNNI", allow_module_level=True)

SHAPES = [(1, 1), (31, 17), (32, 16), (33, 100), (95, 64), (200, 260)]


def test_it_is_available_where_the_cpu_has_the_instruction() -> None:
    assert int8.available(), "a broken kernel must not be taken for a CPU without the instruction"


def integers(n: int, k: int, rows: int, *, fine: bool) -> tuple[Tensor, Tensor]:
    """Returns weights, and activations with both ends of the range in every row, so that a quantisation step is 1."""
    gen = torch.Generator().manual_seed(n + k + rows)
    q = torch.randint(-127, 128, (n, k), generator=gen, dtype=torch.int8)
    low, high = (-32639, 32639) if fine else (0, 255)
    x = torch.randint(low, high + 1, (rows, k), generator=gen)
    x[:, 0] = high
    x[:, -1] = low if k > 1 else high
    return q, x


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_products_of_integers_are_exact(n: int, k: int, fine: bool) -> None:
    for rows in [*range(1, 18), 25, 40]:
        q, x = integers(n, k, rows, fine=fine)
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
    if not linear._onednn_multiplies():
        pytest.skip("oneDNN does not multiply int8 on this CPU")
    gen = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(512, 2048, generator=gen) * 0.02, torch.randn(512, generator=gen)
    own, old = (make(weight, bias, fine) for make in (linear._int8_vnni, linear._int8_onednn))
    for rows in (1, 3, 6, 14):
        x = torch.randn(rows, 2048, generator=gen)
        for gelu in (False, True):
            truth = linear._plain(weight, bias)(x, gelu)
            error, before = ((layer(x, gelu) - truth).norm() / truth.norm() for layer in (own, old))
            assert error <= before * 1.01
            assert error < (0.006 if fine else 0.011)


def test_rows_do_not_depend_on_their_neighbours() -> None:
    q, x = integers(96, 64, 17, fine=True)
    run = int8.Product(q, torch.ones(96), torch.zeros(96), True)
    together, alone = run(x.float()), torch.cat([run(row[None].float()) for row in x])
    assert torch.equal(together, alone)


def test_strided_rows_no_rows_and_rows_of_zeros() -> None:
    q, x = integers(64, 32, 6, fine=False)
    run = int8.Product(q, torch.ones(64), torch.ones(64), False)
    wide = torch.cat([x, x], 1).float()
    assert torch.equal(run(wide[:, :32]), run(x.float()))
    assert run(x[:0].float()).shape == (0, 64)
    torch.testing.assert_close(run(torch.zeros(3, 32)), torch.ones(3, 64))


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_make_their_row_nan(fine: bool, bad: float) -> None:
    q, x = integers(64, 48, 3, fine=fine)
    broken = x.float()
    broken[1, 20] = bad
    run = int8.Product(q, torch.ones(64), torch.zeros(64), fine)
    y = run(broken)
    assert bool(y[1].isnan().all())
    assert torch.equal(y[[0, 2]], run(x.float())[[0, 2]])


@pytest.mark.parametrize("n", [31, 64, 95])
def test_gelu_is_as_near_as_torchs(n: int) -> None:
    gen = torch.Generator().manual_seed(n)
    run = int8.Product(torch.eye(n, dtype=torch.int8), torch.ones(n), torch.zeros(n), True)
    for width in (1e-3, 1.0, 12.0, 1e20):
        x = run(torch.randn(40, n, generator=gen) * width)
        truth = torch.nn.functional.gelu(x.double())
        torch.testing.assert_close(run(x, True).double(), truth, rtol=2e-6, atol=1e-6)
    x = run(torch.linspace(-15, 15, 8 * n).view(8, n))
    assert float((run(x, True) - torch.nn.functional.gelu(x.double())).abs().max()) <= 1e-6


def test_rows_beyond_a_threads_scratch_memory() -> None:
    q, x = integers(40, 4096, 150, fine=False)
    run = int8.Product(q, torch.ones(40), torch.zeros(40), False)
    assert run.plan(150, torch.get_num_threads())[1] > int8.SCRATCH
    assert torch.equal(run(x.float()), torch.cat([run(part) for part in x.float().split(30)]))


def test_two_threads_at_once() -> None:
    q, x = integers(512, 1024, 12, fine=True)
    run = int8.Product(q, torch.ones(512), torch.zeros(512), True)
    wanted = [run(x[i : i + 6].float()) for i in (0, 6)]

    def again(i: int) -> bool:
        return all(torch.equal(run(x[6 * i : 6 * i + 6].float()), wanted[i]) for _ in range(200))

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(again, (0, 1)))


def test_one_thread_or_many_give_the_same() -> None:
    q, x = integers(300, 256, 5, fine=False)
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


def test_without_numba_the_engine_uses_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    int8.available.cache_clear()
    try:
        assert not int8.available()
        layer = linear.linear(torch.eye(16), torch.zeros(16), "int8", torch.device("cpu"))
        torch.testing.assert_close(layer(torch.eye(16), False), torch.eye(16), rtol=0, atol=0.01)
    finally:
        monkeypatch.undo()
        int8.available.cache_clear()


# --- attention --------------------------------------------------------------------------------------------------------


def heads_of(n: int, tokens: int, slots: int, heads: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns tokens' queries, keys and values; a buffer of keys and values; a mask per row, with some slots masked."""
    gen = torch.Generator().manual_seed(n + slots)
    qkv = torch.randn(n, tokens, 3 * heads * width, generator=gen) * 2
    kv = torch.randn(2, n, heads, slots, width, generator=gen)
    masked = torch.arange(slots)[None] < torch.arange(n)[:, None].clamp(max=slots - tokens)
    return qkv, kv, causal(tokens, slots - tokens, torch.device("cpu")) + masked[:, None, None] * MASKED


@pytest.mark.parametrize(
    ("n", "tokens", "slots", "heads", "width"),
    [(1, 1, 1, 1, 8), (2, 3, 6, 32, 64), (3, 3, 80, 3, 24), (5, 8, 8, 2, 5), (4, 8, 30, 4, 16)],
)
def test_attention_is_torchs(n: int, tokens: int, slots: int, heads: int, width: int) -> None:
    qkv, kv, mask = heads_of(n, tokens, slots, heads, width)
    run = int8.Attention()
    for queries in {1, tokens}:
        for m in (mask, mask[-1:], mask[0, 0]):
            mine, theirs = kv.clone(), kv.double()
            y = run(qkv, mine, m, queries)
            truth = within(qkv.double(), theirs, m.double(), queries)
            torch.testing.assert_close(y.double(), truth, rtol=1e-6, atol=2e-6)
            assert torch.equal(mine.double(), theirs), "the tokens' own keys and values belong in the last slots"


def test_masked_slots_have_no_part_in_attention() -> None:
    qkv, kv, mask = heads_of(4, 3, 9, 2, 16)
    run, other = int8.Attention(), kv.clone()
    other[:, 3, :, :3] += 100
    assert torch.equal(run(qkv, kv, mask, 3), run(qkv, other, mask, 3))
    qkv[1, 0, 5] = float("nan")
    y = run(qkv, kv, mask, 3)
    assert bool(y[1, 0, :16].isnan().all())
    assert not bool(y[[0, 2, 3]].isnan().any())


def test_attention_of_many_tokens_or_strided_keys_is_torchs() -> None:
    run = int8.Attention()
    qkv, kv, mask = heads_of(2, int8.MAX_TOKENS + 1, 12, 2, 8)
    assert torch.equal(run(qkv, kv.clone(), mask, 1), within(qkv, kv.clone(), mask, 1))
    qkv, kv, mask = heads_of(2, 3, 12, 2, 8)
    strided = kv.transpose(2, 3).contiguous().transpose(2, 3)
    torch.testing.assert_close(run(qkv, strided, mask, 3), run(qkv, kv, mask, 3), rtol=1e-6, atol=2e-6)
    assert torch.equal(strided, kv)
