"""How the studio looks, to eyes and to screen readers: dark, light, on a phone, in German; and its size."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from windows import Window, example

MUG, TIGER = example("objects/mug.png"), example("textures/tiger.png")
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "device_scale_factor": 2}
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}
Windows = Callable[..., Window]


def faults(page: Any) -> list[str]:
    """Returns what axe finds on a page."""
    found = Axe().run(page, options=RULES).response["violations"]
    return [
        f"{one['id']}: {node['html'][:160]} ({node['failureSummary'][:200]})" for one in found for node in one["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_nothing_keeps_anybody_out(window: Windows, scheme: str) -> None:
    one = window(color_scheme=scheme).open()
    page = one.page
    page.wait_for_selector(".example img")
    assert faults(page) == []
    one.drop(MUG, TIGER)
    page.wait_for_selector(".react-flow__node >> nth=1")
    one.write('instruct(texturing(mug.png, tiger.png), "golden")')
    page.wait_for_selector(".react-flow__node:has-text('instruct')")
    for end in ("Upscaler", "Search"):
        page.locator(".rail button", has_text=end).click()
        page.locator(".react-flow__node", has_text=end).wait_for()
        page.locator(".react-flow__node", has_text="instruct").locator(".node-head").click()
    assert faults(page) == []
    page.keyboard.press("Escape")
    page.locator("#expression").fill("texturng(mug.png, _)")
    page.wait_for_selector(".line-error")
    assert faults(page) == []
    page.locator("#expression").press("Escape")
    page.locator(".react-flow__node", has_text="instruct").locator(".node-head").click()
    page.keyboard.press("v")
    page.get_by_role("button", name="Stop", exact=True).last.click()
    assert faults(page) == []
    page.get_by_role("button", name="Settings").click()
    assert faults(page) == []
    page.keyboard.press("Escape")
    for keys, shown in (("Control+k", ".palette"), ("?", ".keys")):
        page.keyboard.press(keys)
        page.wait_for_selector(shown)
        assert faults(page) == []
        page.keyboard.press("Escape")


def test_dark_and_light_are_what_the_system_says_until_somebody_chooses(window: Windows) -> None:
    one = window(color_scheme="dark").open()
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = one.page.evaluate(ground)
    one.page.get_by_role("button", name="Dark or light").click()
    light = one.page.evaluate(ground)
    assert dark != light
    one.page.reload()
    one.page.wait_for_selector("h1")
    assert one.page.evaluate(ground) == light
    one.page.emulate_media(color_scheme="light")
    one.page.get_by_role("button", name="Dark or light").click()
    assert one.page.evaluate(ground) == dark


def test_a_phone_browses_varies_and_runs(window: Windows) -> None:
    one = window(**PHONE).start(MUG)
    page = one.page
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    one.write("texturing(mug.png, _)")
    node = page.locator(".react-flow__node", has_text="texturing")
    node.wait_for()
    page.get_by_role("button", name="Ideas").tap()
    page.locator(".panel .tile").first.wait_for()
    assert page.get_by_role("button", name="Vary").last.is_visible()
    assert page.get_by_role("button", name="Model: tiny").is_visible()
    assert faults(page) == []
    page.get_by_role("tab", name="History").tap()
    page.locator(".panel input[type=search]").wait_for()
    page.get_by_role("button", name="Close", exact=True).tap()
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_it_speaks_german(window: Windows) -> None:
    one = window(locale="de-DE").open()
    page = one.page
    assert page.locator("h1").inner_text() == "Bilder komponieren wie Gleichungen"
    assert page.evaluate("document.documentElement.lang") == "de"
    page.get_by_role("button", name="Sprache").click()
    page.get_by_role("button", name="English").click()
    assert page.locator("h1").inner_text() == "Compose pictures like equations"
    page.reload()
    page.wait_for_selector("h1")
    assert page.locator("h1").inner_text() == "Compose pictures like equations"


def test_the_first_page_has_eight_examples_and_one_click_opens_one(window: Windows) -> None:
    one = window()
    page = one.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    one.open()
    page.wait_for_selector(".example .operands >> nth=7")
    assert page.locator(".example").count() == 8
    # What ships is there at once, and nothing is made for it.
    page.locator(".example .frame > img").evaluate_all("all => Promise.all(all.map((one) => one.decode()))")
    assert page.locator(".example .frame > img").count() == 8
    assert not [url for url in asked if "/jobs" in url]
    page.get_by_role("button", name="A rabbit on the beach").click()
    page.wait_for_selector(".react-flow__node >> nth=2")
    one.reads("scene(rabbit.png, beach.png)")
    node = page.locator(".react-flow__node", has_text="scene")
    shipped = node.locator(".frame > img").get_attribute("src")
    assert shipped.startswith("/api/v1/gallery/scene?v="), shipped  # until it is made
    one.picture("scene")
    assert node.locator(".frame > img").get_attribute("src").startswith("/api/v1/images/")
    assert page.locator(".name").input_value() == "A rabbit on the beach"


def test_the_page_is_small_and_brings_its_licences(built: Path) -> None:
    files = [path for path in built.rglob("*") if path.suffix in (".js", ".css", ".html")]
    size = sum(len(gzip.compress(path.read_bytes(), 9)) for path in files)
    assert 50_000 < size <= 400_000
    said = (built / "LICENSES.txt").read_text(encoding="utf-8")
    for name in ("react", "react-dom", "@xyflow/react", "@xyflow/system", "@dagrejs/dagre", "zustand"):
        assert f"\n{name} " in said, name
    assert "Permission is hereby granted" in said
