"""Where an expression ends on the canvas: in an upscaler, or in a search."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from windows import PICTURE, Window, example

MUG = example("objects/mug.png")
Windows = Callable[..., Window]


def test_a_picture_is_made_larger_and_its_recipe_says_so(window: Windows) -> None:
    one = window().start(MUG)
    page = one.page
    one.write('instruct(mug.png, "golden")')
    one.picture("instruct")
    page.locator(".rail button", has_text="Upscaler").click()  # joined to what is chosen
    node = page.locator(".react-flow__node", has_text="Upscaler")
    assert node.locator(".react-flow__handle-right").count() == 0  # nothing comes out
    node.get_by_role("combobox", name="How much larger").select_option(label="3 times, interpolated")
    one.picture("Upscaler")
    small, large = (
        page.locator(".react-flow__node", has_text=title).locator(".frame > img").get_attribute("src").split("?")[0]
        for title in ("instruct", "Upscaler")
    )
    width = """async (url) => (await createImageBitmap(await (await fetch(url)).blob())).width"""
    assert page.evaluate(width, large) == 3 * page.evaluate(width, small)
    job = page.evaluate("async (id) => (await fetch(`/api/v1/jobs/${id}`)).json()", large.split("/")[-1].split("-")[0])
    assert job["recipe"]["rendering"] == {"enlarge": 3}
    # The line is what it enlarges; to edit it leaves the upscaler where it is.
    one.reads('instruct(mug.png, "golden")')
    one.write("texturing(mug.png, _)")
    one.shows(3)
    assert page.locator(".react-flow__edge").count() == 2
    one.reads("texturing(mug.png, _)")
    one.saved()
    page.reload()
    one.picture("Upscaler")
    # An end is no operand.
    page.locator(".react-flow__node", has_text="Upscaler").locator(".node-head").click()
    page.keyboard.press("c")
    page.locator(".palette", has_text="Nothing here takes it").wait_for()


def test_a_search_shows_what_a_library_has_and_gives_it_out(window: Windows, started: Callable[..., str],
                                                            tmp_path: Path) -> None:  # fmt: skip
    pytest.importorskip("lancedb")
    library = tmp_path / "mine.library"
    command = [sys.executable, "-m", "pops", "index", str(MUG.parent), "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True)
    one = window(at=started("--library", f"mine={library}")).start(MUG)
    page = one.page
    page.locator(".rail button", has_text="Search").click()
    node = page.locator(".react-flow__node", has_text="Search")
    node.locator(".hits img >> nth=8").wait_for(timeout=PICTURE)
    assert node.locator(".hits button").first.get_attribute("aria-label") == "Put mug.png on the canvas"
    other = node.locator(".hits button").nth(1)
    name = other.get_attribute("aria-label").removeprefix("Put ").removesuffix(" on the canvas")
    other.click()
    one.shows(3)
    taken = page.locator(".react-flow__node", has_text=name)
    taken.locator(".frame > img").wait_for()
    # It is a photo like any other.
    one.write(f"union(mug.png, {name})")
    one.picture("union")


def test_without_a_library_a_search_says_how_to_name_one(window: Windows) -> None:
    one = window().start(MUG)
    one.page.locator(".rail button", has_text="Search").click()
    node = one.page.locator(".react-flow__node", has_text="Search")
    node.locator("code", has_text="pops studio --library").wait_for()
    assert "pops index" in node.inner_text()
