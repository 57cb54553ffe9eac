"""Every door takes damaged inputs: some tries of each fuzzer, always the same; make fuzz makes many more."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.__main__ import attempt, prepared
from fuzz.doors import DOORS, Input
from fuzz.mutations import ODD
from fuzz.watch import MEMORY, Finding, watch
from pops.errors import PopsError
from pops.expression import parse
from pops.expression.trees import from_tree, to_tree
from pops.recipe import Options, Recipe

TRIES = {"folders": 25, "manifests": 15, "commands": 30}


@pytest.mark.parametrize("name", DOORS)
def test_damaged_inputs_are_read_or_refused_in_a_line(tmp_path: Path, name: str, pickles_here: None) -> None:
    counts: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that read what is damaged
        door = prepared(name, tmp_path / name)
        for seed in range(TRIES.get(name, 150)):
            counts[attempt(door, seed, tmp_path / "kept")] += 1
    assert counts["refused"] > 0 or name == "commands", "the damage is too small"
    assert counts["read"] > 0 or name == "manifests", "the damage is too large"


@pytest.mark.parametrize("fault", ["error", "lines", "memory", "long", "exit"])
def test_the_watch_sees_what_it_should(fault: str) -> None:
    held = []

    def read() -> int:
        match fault:
            case "error":
                raise KeyError("x")
            case "lines":
                error = PopsError("one")
                error.args = ("one\ntwo",)
                raise error
            case "memory":
                held.append(b"x" * (2 * MEMORY))
            case "long":
                error = PopsError("x")
                error.args = ("x y " * 1000,)
                raise error
            case "exit":
                raise SystemExit(1)
        return 0

    with pytest.raises(Finding):
        watch(read)
    assert watch(lambda: 0) == ""


def test_a_finding_is_kept_and_can_be_repeated(tmp_path: Path) -> None:
    door = prepared("expressions", tmp_path)
    door.read = lambda given: 1 // 0  # type: ignore[method-assign]
    with pytest.raises(Finding, match="expressions, seed 3: ZeroDivisionError") as caught:
        attempt(door, 3, tmp_path / "kept")
    kept = tmp_path / "kept" / "expressions" / "3" / "a.txt"
    assert str(kept) in str(caught.value) and kept.is_file()
    assert Input("a.txt", kept.read_bytes()).name == "a.txt"


keys = st.text(max_size=4) | st.sampled_from(["sum", "let", "in", "text", "union", "seed", "photo"])
values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["a.png", "_", "t@7", "$x", "text", "let"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
quick = settings(max_examples=200, deadline=5000, derandomize=True, suppress_health_check=list(HealthCheck))


@quick
@given(values)
def test_any_data_is_a_tree_or_told(data: Any) -> None:
    try:
        node = from_tree(data)
    except PopsError as error:
        assert "\n" not in str(error)
    else:
        assert from_tree(to_tree(node)) == node


@quick
@given(st.text(alphabet="ab.png(),+-*@=;_$'\"\\# 0123456789életxu\n", max_size=60))
def test_any_text_is_an_expression_or_told(text: str) -> None:
    try:
        expression = parse(text)
    except PopsError as error:
        assert "\n" not in str(error)
    else:
        assert parse(str(expression)) == expression and from_tree(expression.tree()) == expression.root


@quick
@given(st.dictionaries(st.sampled_from([*Recipe.model_fields, "x"]), values))
def test_any_data_is_a_recipe_or_told(data: dict[str, Any]) -> None:
    try:
        recipe = Recipe.of_data({"version": 1, "expression": "a.png", **data}, "the test")
    except PopsError as error:
        assert "\n" not in str(error)
    else:
        assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize("name", Options.__annotations__)
def test_any_value_of_a_setting_is_taken_or_told(name: str) -> None:
    more = (10**400, object(), {1: 2}, {"a": object()}, (1, 2), b"x", {1, 2}, range(3), Path("x"), float("nan"), "64")
    for value in (*ODD, *more):
        try:
            Recipe.of("union(a.png, b.png)", **{name: value})
        except PopsError as error:
            assert "\n" not in str(error) and len(str(error)) < 700
