"""Makes the pictures of docs/studio.md: starts a studio, does what people do, and takes pictures of its window.

python docs/studio_pictures.py [--address http://127.0.0.1:7860]     # needs chromium, and the extra dev

With --address it uses a studio that runs already; else it starts one with data of its own.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

OUT = Path(__file__).parent / "pictures"
WAIT = 180_000  # milliseconds for a picture
SCENE = "scene(texturing(vase.png, marble.png), forest.png)"


@contextmanager
def studio() -> Iterator[str]:
    """The address of a studio of our own."""
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-m", "pops", "studio", "--no-browser", "--port", "0", "--data", data]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        yield process.stdout.readline().split()[4]
        process.terminate()
        process.wait(60)


def keep(page: Any, name: str, width: int = 1200) -> None:
    """Writes the window as a small file."""
    page.wait_for_timeout(500)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.thumbnail((width, 2 * width), Image.Resampling.LANCZOS)
    path = OUT / f"studio-{name}.jpg"
    image.save(path, quality=86, optimize=True)
    print(path, path.stat().st_size)


def window(browser: Any, address: str, **how: Any) -> Any:
    """Opens a window on the first page, with all examples made."""
    context = browser.new_context(
        **{"viewport": {"width": 1440, "height": 900}, "locale": "en-US", "color_scheme": "dark",
           "reduced_motion": "reduce"} | how
    )  # fmt: skip
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".example .frame > img >> nth=7", timeout=WAIT * 2)
    return page


def taken(browser: Any, address: str) -> None:
    """Takes all pictures."""
    page = window(browser, address)
    keep(page, "home")
    page.get_by_role("button", name="A marble vase in the forest", exact=True).click()
    page.wait_for_selector(".node.made img.arrives >> nth=1", timeout=WAIT)
    keep(page, "canvas")
    page.keyboard.press("Control+k")
    keep(page, "palette")
    page.keyboard.press("Escape")
    page.locator("#expression").fill(SCENE.replace("texturing", "texturng"))
    page.wait_for_selector(".line-error")
    keep(page, "line")
    page.locator("#expression").press("Escape")
    page.keyboard.press("v")
    page.wait_for_selector(".tile img.arrives >> nth=15", timeout=WAIT * 2)
    for tile in (1, 6):
        page.locator(".tile").nth(tile).hover()
        page.locator(".tile").nth(tile).get_by_role("button", name="Pin").click()
    page.locator(".panel-tabs").hover()
    page.wait_for_selector(".toast", state="detached")
    keep(page, "vary")
    page.get_by_role("tab", name="Pinned").click()
    for box in page.locator(".tile .choose").all():
        box.check()
    page.get_by_role("button", name="Compare 2").click()
    page.wait_for_selector(".compare")
    keep(page, "compare")
    page.keyboard.press("Escape")
    page.locator(".tile .look").first.click()
    page.wait_for_selector(".viewer-side")
    keep(page, "view")
    page.keyboard.press("Escape")
    address_of_project = page.url
    light = window(browser, address, color_scheme="light")
    light.goto(address_of_project)
    light.wait_for_selector(".node.made img.arrives >> nth=1", timeout=WAIT)
    keep(light, "light")
    german = window(browser, address, locale="de-DE", color_scheme="light")
    keep(german, "german")
    phone = window(browser, address, viewport={"width": 390, "height": 844}, device_scale_factor=2, has_touch=True)
    phone.goto(address_of_project)
    phone.wait_for_selector(".node.made img.arrives", timeout=WAIT)
    phone.get_by_role("button", name="Ideas").click()
    phone.get_by_role("button", name="Vary").last.click()
    phone.wait_for_selector(".tile img.arrives >> nth=3", timeout=WAIT)
    keep(phone, "phone", width=500)


def main() -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", help="of a studio that runs")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=given.browser, args=["--no-sandbox"])
        if given.address:
            taken(browser, given.address)
        else:
            with studio() as address:
                taken(browser, address)


if __name__ == "__main__":
    main()
