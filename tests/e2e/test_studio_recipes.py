"""A picture that pops made brings all that its recipe says, onto an empty canvas and beside other pictures."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

from servers import start
from windows import PICTURE, Window, example

MUG, TIGER = example("objects/mug.png"), example("textures/tiger.png")
Windows = Callable[..., Window]
MAKE = """async ([expression, more]) => {
  const asked = { method: "POST", headers: { "content-type": "application/json" } };
  const [project] = (await (await fetch("/api/v1/projects")).json()).projects;
  const { document } = await (await fetch(`/api/v1/projects/${project.id}`)).json();
  const recipe = { ...more, expression: expression.replace("mug.png", `photo:${document.photos[0]}`) };
  const { id } = await (await fetch("/api/v1/jobs", { ...asked, body: JSON.stringify(recipe) })).json();
  for (;;) {
    const job = await (await fetch(`/api/v1/jobs/${id}?wait=30`)).json();
    if (job.status === "failed") throw new Error(job.error.message);
    if (job.status !== "done") continue;
    const bytes = new Uint8Array(await (await fetch(`/api/v1/images/${job.images.at(-1).id}`)).arrayBuffer());
    return btoa(String.fromCharCode(...bytes));
  }
}"""
OF = """async (source) => {
  const id = source.split("?")[0].split("/").at(-1).split("-")[0];
  return (await (await fetch(`/api/v1/jobs/${id}`)).json()).recipe;
}"""
MAKING = {"steps": 4, "guidance": 2.5, "sampler": "ddim"}
RENDERING = {"steps": 3, "negative": "dull", "size": [64, 64]}


def recipe_of(one: Window, title: str) -> dict[str, Any]:
    """Returns the recipe of the picture that a node shows, once it is made."""
    shown = one.page.locator(".react-flow__node", has_text=title).locator(".frame[aria-busy=false] img.arrives").first
    shown.wait_for(timeout=PICTURE)
    found: dict[str, object] = one.page.evaluate(OF, shown.get_attribute("src"))
    return found


def test_a_dropped_picture_brings_all_its_settings(window: Windows, tmp_path: Path) -> None:
    one = window().start(MUG)
    one.saved()
    one.page.set_default_timeout(PICTURE)
    settings = {"seeds": [3, 7], "making": MAKING, "rendering": {**RENDERING, "enlarge": 2}}
    picture = tmp_path / "made.png"
    picture.write_bytes(base64.b64decode(one.page.evaluate(MAKE, ['instruct(mug.png, "golden")', settings])))

    two = window().empty()  # they become the canvas's own, and what it enlarges an upscaler
    two.drop(picture)
    wanted = {"seeds": [7], "making": MAKING, "rendering": {**RENDERING, "enlarge": 2}}
    made = recipe_of(two, "Upscaler")
    assert {name: made[name] for name in wanted} == wanted
    assert recipe_of(two, "instruct")["rendering"] == RENDERING
    two.page.get_by_role("button", name="Model").click()
    rows = two.page.locator(".more-rows")
    assert "negative" in rows.inner_text() and "64 × 64" in rows.inner_text()
    rows.get_by_role("button", name="Leave out negative").click()
    two.page.keyboard.press("Escape")
    two.page.wait_for_timeout(600)
    assert "negative" not in recipe_of(two, "Upscaler")["rendering"]

    three = window().start(TIGER)  # beside other pictures, they are its own
    three.drop(picture, at=(900, 500))
    made = recipe_of(three, "Upscaler")
    assert {name: made[name] for name in wanted} == wanted
    three.write("texturing(mug.png, tiger.png)")
    assert recipe_of(three, "texturing")["making"] == MAKING
    three.page.locator(".rail button", has_text="scene").click()
    assert recipe_of(three, "scene")["making"] == MAKING  # what is made of it is made like it


def pixels(one: Window, title: str) -> str:
    """Returns the bytes of a node's picture, without its recipe, in hex of their digest."""
    shown = one.page.locator(".react-flow__node", has_text=title).locator(".frame[aria-busy=false] img.arrives").first
    shown.wait_for(timeout=PICTURE)
    digest = """async (source) => {
      const bytes = await (await fetch(`${source.split("?")[0]}?recipe=0`)).arrayBuffer();
      return [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))].join(" ");
    }"""
    return str(one.page.evaluate(digest, shown.get_attribute("src")))


def test_a_project_opened_elsewhere_makes_the_same_bytes(
    window: Windows, started: Callable[..., str], tmp_path: Path
) -> None:
    one = window().start(MUG, TIGER)
    one.write("texturing(mug.png, tiger.png) @5")
    made = pixels(one, "texturing")
    one.saved()
    one.page.get_by_role("button", name="Export").click()
    with one.page.expect_download() as download:
        one.page.get_by_role("button", name="Project (.pops)").click()
    download.value.save_as(tmp_path / "mug.pops")
    two = window(at=started()).open()
    two.drop(tmp_path / "mug.pops")
    two.page.wait_for_selector(".react-flow__node >> nth=2")
    two.reads("texturing(mug.png, tiger.png) @5")
    assert pixels(two, "texturing") == made


def test_a_server_with_a_token_asks_for_it(window: Windows, built: Path, tmp_path: Path) -> None:
    server = start(tmp_path / "data", Path("tiny"), "--token", "open-sesame")
    try:
        one = window(at=server.address.removesuffix("/api/v1"))
        page = one.page
        page.goto(one.address)
        page.locator("h1", has_text="This server wants its token").wait_for()
        page.get_by_label("Token").fill("open-barley")
        page.get_by_role("button", name="Open").click()
        page.get_by_role("alert").wait_for()
        page.get_by_label("Token").fill("open-sesame")
        page.get_by_label("Token").press("Enter")
        page.locator(".home h1").wait_for()
        page.locator(".example .frame > img >> nth=7").wait_for()
        page.reload()
        page.locator(".home h1").wait_for()  # it is remembered
        one.drop(MUG)
        one.shows(1)
        one.write('instruct(mug.png, "golden")')
        one.picture("instruct")
        page.context.clear_cookies()
        page.get_by_role("button", name="Ideas").click()
        page.get_by_role("tab", name="History").click()
        page.locator("h1", has_text="This server wants its token").wait_for()
        page.context.close()
    finally:
        server.stop()
