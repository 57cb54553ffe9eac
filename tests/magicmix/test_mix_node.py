"""mix(...) in expressions: a picture where a picture is wanted, an embedding where one is; latents; repeated mixes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pops
from folders import close, size_of
from pops.errors import Cancelled, ConfigError, ExpressionError, OperandError
from pops.expression.grammar import parse, to_text
from pops.expression.plan import plan
from pops.expression.trees import from_tree, to_tree
from pops.magicmix.operands import MixSettings, with_defaults
from pops.studio import Pops

FEW = "steps=3, guidance=2"
MIX = f'mix(a.png, "tiger", {FEW})'


@pytest.fixture(scope="module")
def p(folder: Path) -> Pops:
    return pops.load(folder, device="cpu")


def seen(path: str) -> bytes:
    with Image.open(path) as picture:
        return picture.convert("RGB").tobytes()


def pixels(picture: Image.Image) -> Any:
    return np.asarray(picture).astype(int)


# --- the language
# ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        'mix(rabbit.png, "a tiger")',
        "mix(rabbit.png, tiger, nu=0.7, k_min=0.2, k_max=0.8, strength=-1.5, steps=20, guidance=3) @7",
        'texturing(mix(rabbit.png, "tiger:1.5 fur:-1"), tiger.png)',
        'mix(mix("a dog", "a cat") @1, texturing(teapot.png, _), nu="0.9,0.5", inject=input, size=64)',
        "let m = mix($x, 0.5*a.png + 0.5*b.png); union(m, m@7)",
        'mix(latent.safetensors, "tiger", negative="dark colours")',
    ],
)
def test_text_and_tree_round_trips(text: str) -> None:
    node = parse(text)
    assert to_text(node) == text and parse(to_text(node)) == node
    assert from_tree(json.loads(json.dumps(to_tree(node)))) == node


def test_a_tree_of_data() -> None:
    node = from_tree({"mix": ["rabbit.png", "a tiger"], "nu": 0.5, "seed": 3})
    assert to_text(node) == 'mix(rabbit.png, "a tiger", nu=0.5) @3'


def test_the_plan_encodes_what_is_needed() -> None:
    laid = plan(parse('union(mix(a.png, "tiger"), mix("red", b.png))'), None)
    shown = [to_text(node) for node in (*laid.photos, *laid.words) if node in laid.embedded]
    assert shown == ["b.png"] and laid.texts == ()
    assert "encode   b.png" in str(laid) and "mix      a.png" in str(laid)
    assert [level.operator for level in laid.levels] == ["mix", "union"]  # both mixes in one batch
    assert len(laid.levels[0].jobs) == 2


@pytest.mark.parametrize(
    ("text", "says", "spot"),
    [
        ("mix(a.png)", "mix takes 2 operands (layout, content), got 1", "mix(a.png)"),
        ("mix(a.png, b.png, c.png)", "mix takes 2 operands", None),
        ("mix(a.png, _)", "the operand 'content' of mix cannot be missing", "_"),
        ("mix(a.png, tiger, nuu=0.3)", "unknown option 'nuu' (did you mean 'nu'?)", None),
        ("mix(a.png, tiger, nu=1.2)", "nu must be from 0", None),
        ('mix(a.png, tiger, nu="1,x")', "nu is a number from 0 to 1, or several", None),
        ("mix(a.png, tiger, strength=-2.5)", "strength must be from -2", None),
        ("mix(a.png, tiger, k_max=60)", "k_max is a fraction of the steps, from 0 to 1", None),
        ("mix(a.png, tiger, k_min=0.8)", "k_min must not be above k_max", None),
        ("mix(a.png, tiger, steps=0)", "steps must be from 1 to 1000", None),
        ("mix(a.png, tiger, inject=both)", "inject must be", None),
        ('mix(a.png, "tiger:3")', "the strength of 'tiger' must be from -2", '"tiger:3"'),
        ("mxi(a.png, tiger)", "unknown operator 'mxi' (did you mean 'mix'?)", "mxi"),
        ("texturing(a.png, tiger, nu=0.3)", "unknown option 'nu'", None),
    ],
)
def test_mistakes_are_shown_where_they_are(p: Pops, text: str, says: str, spot: str | None) -> None:
    with pytest.raises(ExpressionError) as told:
        p.plan(f"union({text}, b.png)")
    assert says in str(told.value)
    span = told.value.span
    assert span is not None and told.value.text[slice(*span)] == (spot or text)


# --- what it computes
# ------------------------------------------------------------------------------------------


def test_the_root_is_the_picture_and_evaluate_its_embedding(p: Pops, photos: Path) -> None:
    (picture,) = p(MIX, seed=4)
    alone = p.mix("a.png", "tiger", steps=3, guidance=2, seed=4)
    assert picture.size == alone.size == (40, 30) and (pixels(picture) == pixels(alone)).all()
    assert close(p.evaluate(MIX, seed=4).vectors, p.embed(alone).vectors)
    assert picture.info["pops"]["expression"] == to_text(parse(MIX))
    assert list(picture.info["pops"]["inputs"]) == ["a.png"]
    (crop,) = p.trace(MIX, fit="crop").values.values()
    assert close(crop.vectors, p.embed(p(MIX)[0], fit="crop").vectors)


def test_inside_an_operator_and_a_sum(p: Pops, photos: Path) -> None:
    made = p.embed(p(MIX, seed=4)[0])
    assert close(
        p.evaluate(f"texturing({MIX}, b.png, steps=2)", seed=4).vectors,
        p.apply("texturing", made, "b.png", steps=2, seed=4).vectors,
    )
    total = p.evaluate(f"0.5*{MIX} + 0.5*b.png", seed=4).vectors
    assert close(total, (made.vectors + p.embed("b.png").vectors) / 2)
    assert p(f"union({MIX}, b.png, steps=2)")[0].size == (32, 32)  # rendered


@pytest.mark.parametrize(
    ("layout", "content"),
    [
        ("a.png", "b.png"),
        ('"red"', '"tiger red"'),
        ("texturing(a.png, b.png, steps=2)", "tiger"),
        ("a.png", "texturing(a.png, _, steps=2)"),
        ('text("red", steps=2)', "0.5*a.png + 0.5*b.png"),
    ],
)
def test_every_kind_of_operand_as_p_mix_takes_it(p: Pops, photos: Path, layout: str, content: str) -> None:
    (picture,) = p(f"mix({layout}, {content}, {FEW})", seed=3)
    values = [pops.parse(text) for text in (layout, content)]
    values = [v.root.name if hasattr(v.root, "name") else v for v in values]  # a bare word
    alone = p.mix(*values, steps=3, guidance=2, seed=3)
    assert abs(pixels(picture) - pixels(alone)).max() <= 1


def test_a_mix_as_layout_is_a_picture(p: Pops, photos: Path) -> None:
    inner = p(MIX, seed=2)[0]
    (outer,) = p(f'mix({MIX}, "red", {FEW})', seed=2)
    assert (pixels(outer) == pixels(p.mix(inner, "red", steps=3, guidance=2, seed=2))).all()
    assert (pixels(p.mix(MIX, "red", steps=3, guidance=2, seed=2)) == pixels(outer)).all()


def test_given_values(p: Pops, photos: Path) -> None:
    with Image.open("a.png") as file:
        photo = file.convert("RGB")
    trace = p.trace(f"mix($x, $y, {FEW})", given={"x": photo, "y": p.embed("b.png")})
    assert trace.mixed is not None
    assert abs(pixels(trace.mixed[0]) - pixels(p(f"mix(a.png, b.png, {FEW})")[0])).max() <= 1
    with pytest.raises(OperandError, match="x has no value"):
        p.evaluate("mix($x, tiger)")


def test_seeds_are_rows_and_a_row_equals_the_row_alone(p: Pops, photos: Path) -> None:
    expression = f"mix(texturing(a.png, _, steps=2), tiger, {FEW})"
    batch = p(expression, seed=[5, 6, 7], num_images=2)
    assert len(batch) == 6
    for i, seed in enumerate([5, 6, 7]):
        for j, alone in enumerate(p(expression, seed=seed, num_images=2)):
            assert abs(pixels(batch[2 * i + j]) - pixels(alone)).max() <= 1
    # A picture's second image has the row's next seed, with the row's operands.
    row = p.evaluate("texturing(a.png, _, steps=2)", seed=6)
    assert abs(pixels(batch[3]) - pixels(p.mix(row, "tiger", steps=3, guidance=2, seed=7))).max() <= 1
    together = p.evaluate(expression, seed=[5, 6]).vectors
    assert torch.allclose(together[1], p.evaluate(expression, seed=6).vectors[0], atol=0.05)


def test_a_seed_of_its_own(p: Pops, photos: Path) -> None:
    rows = p(f"{MIX} @9", seed=[1, 2])
    assert (pixels(rows[0]) == pixels(rows[1])).all() and (pixels(rows[0]) == pixels(p(MIX, seed=9)[0])).all()
    assert [picture.info["pops"]["image"] for picture in rows] == [0, 1]


def test_shared_parts_are_mixed_once_and_levels_are_batches(p: Pops, photos: Path) -> None:
    seen: list[int] = []
    unet = p.mixer().unet
    handle = unet.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    try:
        p.evaluate(f"let m = {MIX}; 0.5*m + 0.2*union(m, m@7, steps=2) + 0.1*mix(a.png, red, {FEW})")
    finally:
        handle.remove()
    assert seen == [2 * 3]  # one step of the window's three: three mixes, with guidance


def test_progress_grows_to_its_total_and_cancels(p: Pops, photos: Path) -> None:
    told: list[tuple[int, int, str]] = []
    expression = 'texturing(mix(a.png, "tiger", steps=5, k_max=1), b.png, steps=3)'
    p.evaluate(expression, on_progress=lambda *step: told.append(step))
    done = [step[0] for step in told]
    assert done == sorted(done) and told[-1][:2] == (9, 9) and {"mix", "texturing"} <= {step[2] for step in told}

    def stop(done: int, total: int, what: str) -> None:
        if what == "mix":
            raise Cancelled

    with pytest.raises(Cancelled):
        p.evaluate(expression, on_progress=stop)
    assert not any(module._forward_hooks for module in p.mixer().unet.modules())


def test_what_cannot_be_is_told(p: Pops, photos: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"a mix is not rendered: pag_scale, prompt, render_steps would change nothing; "
        r"set steps inside mix\(\.\.\.\), leave out pag_scale, prompt$",
    ):
        p(MIX, render_steps=3, prompt="red", pag_scale=2)
    with pytest.raises(ConfigError, match=r"strength would change nothing; set strength inside mix\(\.\.\.\)$"):
        p(MIX, strength=2)
    with pytest.raises(ConfigError, match=r"guidance would change nothing; leave out guidance$"):
        p("0.5*a.png + 0.5*b.png", guidance=2)
    told: list[str] = []
    p(f'mix(a.png, "{"zebra " * 80}", {FEW})', on_note=told.append)
    assert len(told) == 1 and "cut before" in told[0]
    with pytest.raises(ConfigError, match="mixing needs a Stable Diffusion renderer"):
        p(MIX, renderer="swatch")


# --- latents
# ------------------------------------------------------------------------------------------


def test_a_saved_latent_is_a_layout(p: Pops, photos: Path, folder: Path) -> None:
    pairs = p.mix("a.png", "tiger", steps=3, seed=[0, 1], output="both")
    picture, latent = pairs[1]
    assert picture.info["pops"]["image"] == 1
    assert torch.equal(latent, p.mix("a.png", "tiger", steps=3, seed=[0, 1], output="latent")[1])
    p.mixer().save_latent(latent, "l.safetensors", picture.info["pops"])
    expected = p.mix(latent, "red", steps=3)
    assert (pixels(p.mix("l.safetensors", "red", steps=3)) == pixels(expected)).all()
    (node,) = p("mix(l.safetensors, red, steps=3)")
    assert (pixels(node) == pixels(expected)).all() and list(node.info["pops"]["inputs"]) == ["l.safetensors"]
    alone = pops.MagicMix.load(folder / "renderer")
    assert alone("l.safetensors", "red", steps=3, output="latent").isfinite().all()
    with pytest.raises(OperandError, match="l.safetensors is a latent, which can be a layout"):
        p.mix("a.png", "l.safetensors")


def test_latents_that_do_not_fit(p: Pops, photos: Path, tmp_path: Path) -> None:
    from folders import write_renderer

    mixer = p.mixer()
    mixer.save_latent(torch.zeros(4, 16, 16), "l.safetensors", {"model": "random"})
    other = pops.MagicMix.load(write_renderer(tmp_path / "other", seed=8))
    with pytest.raises(OperandError, match=r"another model's autoencoder \(random\); use that model"):
        other("l.safetensors", "red")
    half = pops.MagicMix.load(tmp_path / "other", dtype="bfloat16")
    other.save_latent(torch.zeros(4, 16, 16), "o.safetensors")
    assert half("o.safetensors", "red", steps=2, output="latent").shape == (4, 16, 16)
    with pytest.raises(OperandError, match=r"\[4, h, w\] of finite numbers, got \[3, 16, 16\]"):
        mixer.save_latent(torch.zeros(3, 16, 16), "m.safetensors")
    with pytest.raises(OperandError, match="ends in .safetensors"):
        mixer.save_latent(torch.zeros(4, 16, 16), "m.npy")
    from safetensors.torch import load_file, save_file

    about = {"format": "pops.latent", "version": "1", "spreads": "[]", "provenance": "{}"}
    save_file({"latent": torch.zeros(8, 4, 4)}, "w.safetensors", about)
    with pytest.raises(OperandError, match=r"w.safetensors holds a latent \[8, 4, 4\], this model's are \[4, h, w\]"):
        mixer("w.safetensors", "red")
    save_file({"latent": torch.zeros(4, 4, 4)}, "v.safetensors", {**about, "version": "2"})
    with pytest.raises(OperandError, match="version 2"):
        mixer("v.safetensors", "red")
    save_file(load_file("l.safetensors"), "bare.safetensors", {"format": "pops.latent"})
    with pytest.raises(OperandError, match="holds no latent that can be read"):
        mixer("bare.safetensors", "red")


# --- the command line
# ------------------------------------------------------------------------------------------


def test_run_figures_and_embedding(call: Any) -> None:
    out = ["-o", "out.png", "--tree", "t.png", "--equation", "e.png", "--save-embedding", "e.safetensors"]
    done = call("run", f"texturing({MIX}, b.png, steps=2)", "--model", "$M", *out)
    assert done.exit_code == 0, done.output
    root = call("run", MIX, "--model", "$M", "-o", "m.png", "--tree", "u.png", "--render-steps", "1")
    assert root.exit_code == 0, root.output
    assert size_of("m.png") == (40, 30)
    refused = call("run", MIX, "--model", "$M", "-o", "n.png", "--render-steps", "1")
    assert refused.exit_code == 2 and "a mix is not rendered" in refused.stderr and not Path("n.png").exists()
    Path("t.yaml").write_text("{texturing: [{mix: [a.png, tiger], steps: 3, guidance: 2}, b.png], steps: 2}")
    again = call("run", "t.yaml", "--model", "$M", "-o", "again.png")
    assert again.exit_code == 0 and seen("again.png") == seen("out.png")


@pytest.mark.parametrize(
    "words",
    [
        ["run", MIX, "--seed", "3"],
        ["run", f"mix(a.png, texturing(b.png, _, steps=2), {FEW})", "--seed", "0,4", "-n", "2"],
        ["mix", "a.png", "tiger:1.5", "--steps", "3", "--nu", "0.5,1", "--seed", "5", "--fit", "crop"],
        ["mix", "a.png", "b.png", "--steps", "3", "--seed", "0:2", "-n", "2", "--size", "40x24", "--negative", "red"],
        ["mix", "red", "texturing(b.png, _, steps=2)", "--steps", "3", "--preset", "breed", "--seed", "1,2"],
        ["mix", "a.png", "red:-0.5 tiger", "--steps", "3", "--preset", "remove"],
        ["mix", "a.png", "tiger", "--steps", "3", "--sweep", "nu=0.1:0.9:2", "--sweep", "k_max=0.5:1:2"],
    ],
)
def test_a_mix_repeats_itself_byte_for_byte(call: Any, words: list[str]) -> None:
    made = call(*words, "--model", "$M", "-o", "out.png", "--json")
    assert made.exit_code == 0, made.output
    path = json.loads(made.stdout)["outputs"][-1]
    again = call("run", path, "--trust", "-o", "again.png")
    assert again.exit_code == 0, again.output
    assert Path("again.png").read_bytes() == Path(path).read_bytes()
    shown = call("show", path)
    assert shown.exit_code == 0 and ("mix" in shown.stdout)


def test_repeating_with_other_seeds_and_what_cannot_be_repeated(call: Any, p: Pops) -> None:
    assert call("mix", "a.png", "tiger", "--steps", "2", "--model", "$M", "-o", "m.png").exit_code == 0
    assert call("mix", "a.png", "tiger", "--steps", "2", "--model", "$M", "-o", "n.png", "-s", "7").exit_code == 0
    again = call("run", "m.png", "--trust", "-o", "o.png", "--seed", "7")
    assert again.exit_code == 0, again.output
    assert Path("o.png").read_bytes() == Path("n.png").read_bytes()
    refused = call("run", "m.png", "--trust", "-o", "q.png", "--guidance", "3")
    assert refused.exit_code == 2 and "there is no operator to sample: guidance would change nothing" in refused.stderr
    refused = call("run", "m.png", "--trust", "-o", "a.png")
    assert refused.exit_code == 2 and "a.png is an operand of the expression" in refused.stderr
    drawn = call("run", "m.png", "--trust", "--tree", "q.png")
    assert drawn.exit_code == 0 and call("run", "q.png", "--trust", "-o", "r.png").exit_code == 0
    assert Path("r.png").read_bytes() == Path("q.png").read_bytes()
    Path("a.png").write_bytes(Path("b.png").read_bytes())
    changed = call("run", "m.png", "--trust", "-o", "q.png")
    assert changed.exit_code == 0 and "a.png changed since" in changed.stderr
    from pops.images import save_picture

    with Image.open("b.png") as photo:
        picture = p.mix(photo.convert("RGB"), "tiger", steps=2)
    save_picture(picture, "py.png", picture.info["pops"])
    refused = call("run", "py.png", "--trust", "-o", "q.png")
    assert refused.exit_code == 2 and "$given1 was given in Python" in refused.stderr


def test_saving_latents(call: Any) -> None:
    made = call("mix", "a.png", "tiger", "--steps", "2", "--model", "$M", "-o", "m.png", "--save-latent",
                "l.safetensors", "--seed", "0,1", "--json")  # fmt: skip
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["latents"] == ["l-0.safetensors", "l-1.safetensors"]
    next_one = call("mix", "l-1.safetensors", "red", "--steps", "2", "--model", "$M", "-o", "n.png")
    assert next_one.exit_code == 0, next_one.output
    assert call("run", "n.png", "--trust", "-o", "o.png").exit_code == 0
    assert Path("o.png").read_bytes() == Path("n.png").read_bytes()
    bad = call("mix", "a.png", "tiger", "--model", "$M", "-o", "x.png", "--save-latent", "l.npy")
    assert bad.exit_code == 2 and "ends in .safetensors" in bad.stderr and not Path("x.png").exists()


def test_a_model_may_mix_in_other_steps_than_it_renders() -> None:
    assert with_defaults({}, {"steps": 10, "mix_steps": 20, "size": 128}, (64, 64))["steps"] == 20
    assert with_defaults({}, {"steps": 10}, (64, 64)) == {"steps": 10, "guidance": MixSettings.guidance, "size": 64}
    assert with_defaults({"steps": 3}, {"mix_steps": 20}, (64, 64))["steps"] == 3
    assert with_defaults({}, {"guidance": 5, "mix_guidance": 3, "size": 128}, (64, 64))["guidance"] == 3
