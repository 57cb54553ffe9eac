"""What people do in the studio, from the first photo to the exported picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from windows import PICTURE, Window, example

MUG, TIGER = example("objects/mug.png"), example("textures/tiger.png")
Windows = Callable[..., Window]


def test_two_photos_become_a_picture_that_is_varied_pinned_and_found_again(window: Windows, tmp_path: Path) -> None:
    one = window().start(MUG, TIGER)
    page = one.page
    page.locator(".rail button", has_text="texturing").click()  # joins what was dropped
    one.reads("texturing(mug.png, tiger.png)")
    one.picture("texturing")

    # Vary: pictures come one by one; the rest is stopped, and one is pinned.
    page.keyboard.press("v")
    first = page.locator(".tile", has=page.locator("img.arrives")).first
    first.wait_for(timeout=PICTURE)
    page.get_by_role("button", name="Stop").first.click()
    page.wait_for_selector(".says:text-is('Stopped')")
    first.hover()
    first.get_by_role("button", name="Pin").click()
    page.get_by_role("tab", name="Pinned").click()
    assert page.locator(".panel .tile").count() == 1

    # Undo goes back to the bare photos, redo forward again.
    for _ in range(2):
        page.keyboard.press("Control+z")
    one.shows(2)
    for _ in range(2):
        page.keyboard.press("Control+Shift+z")
    one.shows(3)
    one.saved()

    # After a reload all is there: nodes, wires, the picture, the pin.
    before = page.locator(".react-flow__node").evaluate_all("all => all.map(n => [n.dataset.id, n.style.transform])")
    page.reload()
    one.picture("texturing")
    after = page.locator(".react-flow__node").evaluate_all("all => all.map(n => [n.dataset.id, n.style.transform])")
    assert after == before
    assert page.locator(".react-flow__edge").count() == 2
    one.reads("texturing(mug.png, tiger.png)")
    page.get_by_role("button", name="Ideas").click()
    page.get_by_role("tab", name="Pinned").click()
    page.locator(".panel .tile img").first.wait_for()

    # The picture leaves with its recipe, and brings its tree along where it is dropped.
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as PNG").click()
    picture = tmp_path / "picture.png"
    download.value.save_as(picture)
    two = window().empty()
    two.drop(picture)
    two.page.wait_for_selector(".react-flow__node >> nth=2")
    two.reads("texturing(mug.png, tiger.png)")
    two.picture("texturing")

    # A project's file is the project.
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Project (.pops)").click()
    packed = tmp_path / "mug.pops"
    download.value.save_as(packed)
    three = window().open()
    three.drop(packed)
    three.page.wait_for_selector(".react-flow__node >> nth=2")
    three.reads(one.line())
    assert three.page.url != page.url


def test_the_line_and_the_canvas_are_one(window: Windows) -> None:
    one = window().start(MUG, TIGER)
    page = one.page
    chosen = page.locator(".react-flow__node.selected")
    chosen.nth(1).wait_for()  # all that was dropped is chosen, until one of them is clicked
    page.locator(".react-flow__node", has_text="mug.png").locator(".node-head").click()
    chosen.nth(1).wait_for(state="detached")
    assert chosen.count() == 1
    one.write("texturng(mug.png, tiger.png)")
    error = page.locator(".line-error")
    error.wait_for()
    assert "unknown operator 'texturng'" in error.inner_text()
    assert page.locator(".line-mirror mark").inner_text() == "texturng"
    page.get_by_role("button", name="Use “texturing”").click()
    page.wait_for_selector(".react-flow__node:has-text('texturing')")
    one.shows(3)
    photo = page.locator(".react-flow__node", has_text="mug.png").get_attribute("data-id")
    one.write('instruct(mug.png, "golden")')
    page.wait_for_selector(".react-flow__node:has-text('instruct')")
    assert page.locator(".react-flow__node", has_text="mug.png").get_attribute("data-id") == photo
    one.write("texturing(nowhere.png, _)")
    assert "nowhere.png" in error.inner_text()
    page.locator("#expression").press("Escape")
    one.reads('instruct(mug.png, "golden")')
    page.get_by_role("textbox", name="Words").fill("very golden")
    one.reads('instruct(mug.png, "very golden")')
    one.write("0.5*mug.png + 0.5*tiger.png")
    weights = page.get_by_role("slider", name="Weight of part")
    weights.first.wait_for()
    assert weights.count() == 2
    weights.first.press("ArrowRight")  # at once: the line is applied once, and takes nothing back
    one.reads("0.55*mug.png + 0.5*tiger.png")
    page.wait_for_timeout(500)
    one.reads("0.55*mug.png + 0.5*tiger.png")
    one.write("let t = texturing(mug.png, _); union(t, t@7)")
    page.wait_for_selector(".react-flow__node:has-text('union')")
    assert page.locator(".react-flow__node", has_text="texturing").count() == 1
    one.reads("let t = texturing(mug.png, _); union(t, t@7)")
    page.get_by_role("button", name="Taken with seed 7").click()
    one.reads("let t = texturing(mug.png, _); union(t, t)")
    one.write('mix(mug.png, "a tiger", nu=0.7)')
    page.wait_for_selector(".react-flow__node:has-text('mix')")
    one.reads('mix(mug.png, "a tiger", nu=0.7)')


def test_a_wire_that_does_not_fit_says_why(window: Windows) -> None:
    one = window().empty()
    page = one.page
    page.locator(".rail button", has_text="texturing").click()
    page.keyboard.press("Escape")
    page.locator(".rail button", has_text="Words").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Tidy up").click()
    words, node = (page.locator(".react-flow__node", has_text=text) for text in ("Words", "texturing"))
    one.wire(words.locator(".react-flow__handle"), node.locator(".react-flow__handle-left").first)
    told = "“object” takes a picture, not words"
    page.locator(".reason", has_text=told).wait_for()
    page.mouse.up()
    page.locator(".toast", has_text=told).wait_for()
    assert page.locator(".react-flow__edge").count() == 0
    # Let go on the empty canvas, it asks what takes it.
    box = words.bounding_box()
    handle = words.locator(".react-flow__handle").bounding_box()
    page.mouse.move(handle["x"] + 6, handle["y"] + 6)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 320, steps=6)
    page.mouse.up()
    page.wait_for_selector(".palette")
    assert page.locator(".palette [role=option]").count() == 2  # instruct and mix
    page.keyboard.press("Enter")
    page.wait_for_selector(".react-flow__edge", state="attached")


def test_a_picture_that_is_being_made_can_be_stopped_and_made_again(window: Windows) -> None:
    one = window().start(MUG)
    page = one.page
    one.write("texturing(mug.png, _, steps=500)")
    node = page.locator(".react-flow__node", has_text="texturing")
    node.get_by_role("button", name="Stop").click()
    node.locator(".frame", has_text="Stopped").wait_for()
    node.get_by_role("button", name="Make it again").click()
    node.locator(".frame[aria-busy=true]").wait_for()
    one.write("texturing(mug.png, _, steps=400)")
    page.wait_for_selector("#expression:not(:focus)")  # the line is left when it is applied
    node.locator(".frame[aria-busy=true]").wait_for()
    page.keyboard.press("Control+a")
    page.locator(".react-flow__pane").click(position={"x": 700, "y": 40})
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    one.shows(0)


def test_two_windows_of_one_project_lose_nothing(window: Windows) -> None:
    one = window().start(MUG)
    one.saved()
    two = window(one).open(one.page.url.removeprefix(f"{one.address}/"))
    two.page.wait_for_selector(".react-flow__node")
    one.page.locator(".rail button", has_text="Chance").click()
    one.saved()
    two.page.locator(".rail button", has_text="Sentence").click()
    dialog = two.page.get_by_role("dialog")
    dialog.wait_for()
    assert "another window" in dialog.inner_text()
    dialog.get_by_role("button", name="Keep mine as a copy").click()
    two.saved()
    assert two.page.url != one.page.url
    assert "(copy)" in two.page.locator(".name").input_value()
    assert two.page.locator(".react-flow__node", has_text="Sentence").count() == 1
    # And the other way: reload what the first one has.
    three = window(one).open(one.page.url.removeprefix(f"{one.address}/"))
    three.page.wait_for_selector(".react-flow__node >> nth=1")
    one.page.locator(".rail button", has_text="Words").click()
    one.saved()
    three.page.locator(".rail button", has_text="Sentence").click()
    three.page.get_by_role("button", name="Reload").click()
    three.page.wait_for_selector(".node.word")
    three.shows(3)


def test_all_goes_by_the_keyboard(window: Windows) -> None:
    one = window().start(MUG)
    page = one.page
    keys = page.keyboard
    keys.press("Escape")
    page.locator(".react-flow__node").first.focus()
    keys.press("Tab")
    keys.press("Shift+Tab")
    assert page.evaluate("document.activeElement.dataset.id") is not None
    page.wait_for_selector(".react-flow__node:focus")
    keys.press("Control+k")
    page.wait_for_selector(".palette")
    keys.type("instr")
    keys.press("Enter")  # joined to the photo that was chosen
    page.wait_for_selector(".react-flow__edge", state="attached")
    keys.press("Escape")
    keys.press("Control+k")
    page.wait_for_selector(".palette")
    keys.type("Words for")
    page.wait_for_timeout(50)
    keys.press("Control+a")
    keys.type("words")
    keys.press("Enter")
    page.wait_for_selector(".node.word")
    keys.type("golden")
    page.evaluate("document.activeElement.blur()")
    keys.press("c")
    page.wait_for_selector(".palette")
    keys.type("instruct")
    keys.press("Enter")
    one.reads('instruct(mug.png, "golden")')
    keys.press("ArrowRight")
    keys.press("Control+z")
    keys.press("Control+z")
    one.reads("instruct(mug.png, _)")
    keys.press("Control+Shift+z")
    one.reads('instruct(mug.png, "golden")')
    keys.press("e")
    assert page.evaluate("document.activeElement.id") == "expression"
    keys.press("Escape")
    keys.press("?")
    page.get_by_role("dialog", name="Keys").wait_for()
    keys.press("Escape")
    keys.press("Control+a")
    keys.press("Delete")
    one.shows(0)


def test_projects_are_listed_renamed_and_deleted(window: Windows) -> None:
    one = window().empty()
    page = one.page
    page.locator(".name").fill("A project to delete")
    page.locator(".name").press("Enter")
    one.saved()
    page.get_by_role("button", name="All projects").click()
    page.get_by_role("link", name="A project to delete").wait_for()
    page.get_by_role("button", name="Delete A project to delete").click()
    page.get_by_role("link", name="A project to delete").wait_for(state="detached")
    page.locator(".toast button", has_text="Undo").click()
    page.get_by_role("link", name="A project to delete").wait_for()


def test_a_recipe_without_its_photos_says_which_are_missing(window: Windows, tmp_path: Path) -> None:
    from PIL import Image, PngImagePlugin

    about = PngImagePlugin.PngInfo()
    about.add_itxt("pops", json.dumps({"version": 1, "expression": "texturing(lost.png, other.png)"}))
    Image.new("RGB", (8, 8)).save(tmp_path / "foreign.png", pnginfo=about)
    one = window().empty()
    one.drop(tmp_path / "foreign.png")
    one.page.locator(".toast", has_text="lost.png").wait_for()
    one.shows(3)
    assert one.page.locator(".node.photo", has_text="This photo is not here").count() == 2


def test_a_sweep_is_kept_as_one_picture(window: Windows, tmp_path: Path) -> None:
    from PIL import Image

    one = window().start(MUG)
    page = one.page
    one.write('instruct(mug.png, "golden", steps=2)')
    one.picture("instruct")
    page.get_by_role("button", name="Ideas").click()
    page.get_by_role("tab", name="Sweep").click()
    save = page.get_by_role("button", name="Sheet as a PNG")
    assert save.is_disabled()
    page.get_by_role("button", name="Make the sheet").click()
    page.locator(".panel .tile img.arrives >> nth=5").wait_for(timeout=PICTURE)
    with page.expect_download() as download:
        save.click()
    download.value.save_as(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        told = json.loads(sheet.info["pops-sheet"])
    assert len(told) == 6 and told[0]["label"].startswith("Strength 0")
    assert ["strength=0)" in row["recipe"]["expression"] for row in told] == [True] + 5 * [False]
