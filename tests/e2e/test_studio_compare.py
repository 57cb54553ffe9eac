"""Pictures side by side: what is chosen among variations and pins, and what differs in their recipes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect

from windows import PICTURE, Window, example

MUG, DUCK, TIGER = (example(name) for name in ("objects/mug.png", "objects/duck.png", "textures/tiger.png"))
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "device_scale_factor": 2}
Windows = Callable[..., Window]


def test_variations_are_compared_and_the_best_one_is_saved(window: Windows, tmp_path: Path) -> None:
    one = window().start(DUCK, TIGER)  # another test stops the sixteen of the mug: these must be its own
    page = one.page
    one.write("texturing(duck.png, tiger.png)")
    one.picture("texturing")
    page.keyboard.press("v")
    page.wait_for_selector(".tile img.arrives >> nth=15", timeout=PICTURE)
    page.get_by_role("button", name="More room").click()
    last = page.locator(".tile").nth(15).bounding_box()
    assert last["y"] + last["height"] <= 844  # sixteen are seen at once
    page.locator(".tile .look").nth(2).click()
    turns, large = page.locator(".turns"), page.locator(".viewer .frame img")
    expect(turns).to_contain_text("3 of 16")
    third = large.get_attribute("src")
    page.keyboard.press("ArrowRight")
    expect(turns).to_contain_text("4 of 16")
    assert large.get_attribute("src") != third
    page.get_by_role("button", name="Previous picture").click()
    expect(turns).to_contain_text("3 of 16")
    assert large.get_attribute("src") == third
    page.keyboard.press("Escape")
    for tile in (2, 5):
        page.locator(".tile .choose").nth(tile).check()
    page.get_by_role("button", name="Compare 2").click()
    sides = page.locator(".compare section")
    expect(sides).to_have_count(2)
    assert sides.locator("mark").all_inner_texts() == ["2", "5"]  # the seeds, and nothing else
    assert "texturing(duck.png, tiger.png)" in page.locator(".compare-same").inner_text()
    with page.expect_download() as download:
        sides.nth(1).get_by_role("button", name="Save as PNG").click()
    assert download.value.suggested_filename.endswith("-5.png")
    sides.nth(1).get_by_role("button", name="Look closer").click()
    page.locator(".viewer-side").wait_for()
    page.keyboard.press("Escape")
    page.locator(".viewer-side").wait_for(state="detached")
    page.locator(".compare").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="History").click()
    rest = page.get_by_role("button", name="12 more of these").first
    rest.wait_for()
    before = page.locator(".panel .tile").count()
    rest.click()
    expect(page.locator(".panel .tile")).to_have_count(before + 12)


def test_what_two_operators_were_told_differently_is_marked(window: Windows) -> None:
    one = window().start(MUG, TIGER)
    page = one.page
    for expression in ("texturing(mug.png, tiger.png, guidance=3)", "texturing(mug.png, _, guidance=9)"):
        one.write(expression)
        one.reads(expression)
        one.picture("texturing")
        page.locator(".react-flow__node", has_text="texturing").locator(".node-head").click()
        pin = page.get_by_role("button", name="Pin", exact=True)
        expect(pin).to_be_enabled(timeout=PICTURE)
        pin.click()
        page.get_by_role("button", name="Unpin").wait_for()
    page.get_by_role("button", name="Ideas").click()
    page.get_by_role("tab", name="Pinned").click()
    for box in page.locator(".tile .choose").all():
        box.check()
    page.get_by_role("button", name="Compare 2").click()
    expect(page.locator(".compare section")).to_have_count(2, timeout=20_000)
    marks = [side.locator("mark").all_inner_texts() for side in page.locator(".compare section").all()]
    assert sorted(marks) == [["_", "9"], ["tiger.png", "3"]]


def test_a_phone_opens_a_large_canvas_where_it_can_be_read(window: Windows) -> None:
    one = window().start(MUG, TIGER)
    one.write("scene(union(texturing(mug.png, tiger.png), instruct(mug.png, 'golden')), _)")
    one.shows(7)
    one.saved()
    phone = window(**PHONE)
    phone.open(one.page.url.split("/", 3)[3])
    result = phone.page.locator(".react-flow__node", has_text="scene")
    result.wait_for()
    zoom = "new DOMMatrix(getComputedStyle(document.querySelector('.react-flow__viewport')).transform).a"
    phone.page.wait_for_function(f"{zoom} !== 1")
    assert phone.page.evaluate(zoom) >= 0.6
    box = result.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    phone.page.get_by_role("button", name="Show all").tap()
    phone.shows(7)
    phone.page.wait_for_function(f"{zoom} < 0.5")
