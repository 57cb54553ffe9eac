"""The planner: what is shared, what is batched, what is an error, and the listing of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

import pops.expression as expression
from pops.errors import ExpressionError
from pops.expression.grammar import parse, to_text
from pops.expression.nodes import MAX_DEPTH, Call, Missing, Name, Node, Photo, Saved, Text, Word
from pops.expression.plan import SUM, TEXT, Plan, plan
from pops.prior.options import check_options


@dataclass(frozen=True)
class Role:
    name: str
    kind: str = "image"


@dataclass(frozen=True)
class Spec:
    """A fake with what the planner reads of an operator's spec."""

    name: str
    roles: tuple[Role, ...]
    arity: tuple[int, int | None] = (2, 2)

    def check_options(self, options: Mapping[str, object]) -> None:
        check_options(options)

    def check_text(self, text: str) -> None:
        pass


SPECS = {
    spec.name: spec
    for spec in (
        Spec("texturing", (Role("object"), Role("texture"))),
        Spec("union", (Role("image a"), Role("image b"))),
        Spec("instruct", (Role("object"), Role("word", "text"))),
        Spec("clothes", (Role("garment"),), (1, 12)),
        Spec("f", (Role("x"),), (1, 1)),
    )
}


def plan_of(text: str) -> Plan:
    return expression.parse(text).plan(SPECS)  # type: ignore[arg-type]


def test_the_real_specs_fit_the_protocol() -> None:
    from pops.operators.spec import BUILTIN

    assert [level.operator for level in plan(parse("clothes(a.png, b.png, _)"), BUILTIN).levels] == ["clothes"]


# --- sharing and batching --------------------------------------------------------------------------


def test_equal_parts_are_one_job() -> None:
    planned = plan_of("union(texturing(a.png, b.png), let_me)".replace("let_me", "texturing(a.png,b.png)"))
    assert [len(level.jobs) for level in planned.levels] == [1, 1]
    texturing = planned.levels[0].jobs[0].node
    assert planned.uses[texturing] == 2
    assert planned.levels[1].jobs[0].operands == (texturing, texturing)
    assert planned.photos == (Photo("a.png"), Photo("b.png"))


def test_equal_parts_are_one_job_however_the_options_are_ordered() -> None:
    planned = plan_of("union(f(a.png, steps=3, guidance=2), f(a.png, guidance=2.0, steps=3))")
    assert len(planned.levels[0].jobs) == 1
    assert planned.levels[0].option("guidance", 1.0) == 2 and planned.levels[0].option("sampler", "x") == "x"


def test_a_seed_makes_another_job_in_the_same_batch() -> None:
    planned = plan_of("let t = texturing(a.png, _); union(t, t@7)")
    assert [(level.depth, level.operator, len(level.jobs)) for level in planned.levels] == [
        (1, "texturing", 2),
        (2, "union", 1),
    ]
    assert [job.seed for job in planned.levels[0].jobs] == [None, 7]
    assert planned.levels[0].jobs[1].operands == (Photo("a.png"), Missing())


def test_a_seed_on_a_name_reaches_the_outermost_call_only() -> None:
    planned = plan_of("let a = f(f(x.png) @1); let b = a; f(b@7)")
    assert to_text(planned.root) == "f(f(f(x.png) @1) @7)"


def test_levels_batch_by_operator_options_and_number_of_operands() -> None:
    planned = plan_of(
        "clothes(f(a.png), f(b.png), f(c.png, steps=3), clothes(a.png), clothes(b.png), clothes(a.png, b.png))"
    )
    assert [(level.depth, level.operator, level.options, len(level.jobs)) for level in planned.levels] == [
        (1, "f", (), 2),
        (1, "f", (("steps", 3),), 1),
        (1, "clothes", (), 2),
        (1, "clothes", (), 1),
        (2, "clothes", (), 1),
    ]


def test_sums_and_texts_are_steps() -> None:
    planned = plan_of('0.5*text("a cat") @3 - f(text("a dog"))')
    assert [(level.depth, level.operator) for level in planned.levels] == [(1, TEXT), (2, "f"), (3, SUM)]
    assert [(job.prompt, job.seed) for job in planned.levels[0].jobs] == [("a cat", 3), ("a dog", None)]
    assert planned.levels[2].jobs[0].weights == (0.5, -1.0)
    assert planned.levels[2].jobs[0].operands == (Text("a cat", (), 3), Call("f", (Text("a dog"),)))


def test_jobs_come_after_their_operands() -> None:
    planned = plan_of("union(f(f(f(a.png))), let1)".replace("let1", "f(a.png) - f(f(b.png))"))
    done: set[Node] = {*planned.photos}
    for job in planned.jobs:
        assert set(job.operands) <= done
        done.add(job.node)
    assert planned.root in done


def test_a_leaf_is_a_plan_of_no_steps() -> None:
    assert plan_of("a.png").levels == () and plan_of("a.png").root == Photo("a.png")
    assert plan_of("e.safetensors").saved == (Saved("e.safetensors"),)


def test_texts_are_listed_once() -> None:
    planned = plan_of('union(instruct(a.png, golden), instruct(text(golden), "golden"))')
    assert planned.words == (Word("golden"),)
    assert planned.texts == ("golden",)


def test_shared_names_cost_nothing_however_often_they_double() -> None:
    lets = "".join(f"let a{i + 1} = union(a{i}, a{i}); " for i in range(150))
    planned = plan_of(f"let a0 = x.png; {lets}a150")
    assert len(planned.jobs) == 150
    assert len(str(planned)) < 20_000


def test_long_chains_of_names_need_no_stack() -> None:
    lets = "".join(f"let a{i} = a{i + 1}; " for i in range(2000))
    assert plan_of(f"{lets}let a2000 = x.png; a0").root == Photo("x.png")


def test_the_deepest_allowed_is_planned() -> None:
    assert len(plan_of("f(" * MAX_DEPTH + "a.png" + ")" * MAX_DEPTH).levels) == MAX_DEPTH
    lets = "".join(f"let a{i} = f(a{i + 1}); " for i in range(2000))
    with pytest.raises(ExpressionError, match="deeper than 200"):
        plan_of(f"{lets}let a2000 = x.png; a0")


# --- texts, photos, names --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("instruct(a.png, golden)", 'instruct(a.png, "golden")'),
        ("instruct(a.png, sky-blue)", 'instruct(a.png, "sky-blue")'),
        ('let w = "golden"; instruct(a.png, w)', 'instruct(a.png, "golden")'),
        ("let golden = silver; instruct(a.png, golden)", 'instruct(a.png, "silver")'),
        ("instruct(a.png, _)", "instruct(a.png, _)"),
        ("let m = _; union(a.png, m)", "union(a.png, _)"),
        ("f(picture.jxl)", "f(photo('picture.jxl'))"),
        ("let t = a.png; (let t = b.png; f(t))", "f(b.png)"),
        ("let t = a.png; let u = (let t = b.png; f(t)); union(t, u)", "union(a.png, f(b.png))"),
        ("let b = f(a); let a = x.png; b", "f(x.png)"),
    ],
)
def test_names_and_roles_resolve(text: str, resolved: str) -> None:
    assert to_text(plan_of(text).root) == resolved


def test_without_specs_anything_goes() -> None:
    planned = expression.parse("brew(a.png, strong, brew(_), steps=3)").plan()
    assert to_text(planned.root) == 'brew(a.png, "strong", brew(_), steps=3)'


@pytest.mark.parametrize(
    ("text", "says", "spot"),
    [
        ("texturng(a.png, b.png)", "did you mean 'texturing'", "texturng"),
        ("f(texturing(b.png))", r"takes 2 operands \(object, texture\), got 1; write _", "texturing(b.png)"),
        ("f(a.png, b.png)", r"takes 1 operand \(x\), got 2; remove the others", "f(a.png, b.png)"),
        ("clothes()", r"takes 1 to 12 operands \(garment, ...\), got 0", "clothes()"),
        ('f("golden")', "is a text, but the operand 'x' of f must be an image; write text", '"golden"'),
        ("instruct(a.png, b.png)", "is an image, but the operand 'word' of instruct must be a text", "b.png"),
        ("instruct(a.png, f(a.png))", "f\\(a.png\\) is an image", "f(a.png)"),
        ("let t = a.png; instruct(a.png, t)", "a.png is an image", "a.png"),
        ("f(a.png, stpes=3)", "unknown option 'stpes' .did you mean 'steps'", "f(a.png, stpes=3)"),
        ("f(a.png, steps=0)", "steps must be from 1 to 1000, a whole number, got 0", "f(a.png, steps=0)"),
        ("f(a.png, steps=2.5)", "steps must be .*got 2.5", "f(a.png, steps=2.5)"),
        ("f(a.png, steps=many)", "steps must be .*got 'many'", "f(a.png, steps=many)"),
        ("f(a.png, guidance=-1)", "guidance must be from 0 to 100, got -1", "f(a.png, guidance=-1)"),
        ("text(x, guidance=1e9)", "guidance must be", "text(x, guidance=1e9)"),
        ("f(a.png, sampler=3)", "sampler must be a name, got 3", "f(a.png, sampler=3)"),
        ("f(a.png, sampler=dim)", "did you mean 'ddim'", "f(a.png, sampler=dim)"),
        ("let rabbit = a.png; f(rabit)", "unknown name 'rabit' .did you mean 'rabbit'", "rabit"),
        ("f(teapot)", r"teapot.png.*\./teapot", "teapot"),
        ("instruct(a.png, t@7)", "unknown name 't'", "t@7"),
        ("let a = b; let b = f(a); f(a)", "a cycle: a -> b -> a", "a"),
        ("let a = a; a", "a cycle: a -> a", "a"),
        ("let t = a.png; f(t@7)", "a photo, which takes no seed", "t@7"),
        ("let t = a.png + b.png; f(t@7)", "a sum, which takes no seed", "t@7"),
        ("a.png + _", "a term of a sum cannot be missing", "_"),
        ("_", "nothing to compute", "_"),
        ("golden", "unknown name 'golden'", "golden"),
        ('"golden"', "the result must be an image", '"golden"'),
    ],
)  # fmt: skip
def test_mistakes_are_shown_where_they_are(text: str, says: str, spot: str) -> None:
    with pytest.raises(ExpressionError, match=says) as caught:
        plan_of(text)
    error = caught.value
    assert error.text == text and error.span is not None
    assert text[slice(*error.span)] == spot
    assert "\n" not in str(error) and "^" * len(spot) in error.pretty()


def test_mistakes_in_nodes_made_in_python_have_no_span() -> None:
    with pytest.raises(ExpressionError, match="unknown name") as caught:
        plan(Call("f", (Name("t"),)), SPECS)  # type: ignore[arg-type]
    assert caught.value.span is None and "\n" not in caught.value.pretty()


# --- the listing -----------------------------------------------------------------------------------


def test_a_plan_prints_itself() -> None:
    text = "let t = texturing(a.png, _, steps=5); instruct(union(t, t@7) - 0.5*union(t, t@7), golden)"
    assert str(plan_of(text)) == (
        "1 photo, 1 text, 5 steps in 4 batches\n"
        '  encode   a.png, "golden"\n'
        "  level 1  #1 = texturing(a.png, _, steps=5)\n"
        "           #2 = texturing(a.png, _, steps=5) @7\n"
        "  level 2  #3 = union(#1, #2)\n"
        "  level 3  #4 = #3 - 0.5*#3\n"
        '  level 4  #5 = instruct(#4, "golden")\n'
        "  shared   #3 (2 uses)\n"
        "  result   #5"
    )
