"""Figures of the studio on this machine: first paint, and frames of a canvas of 200 nodes that is moved.

python tests/e2e/figures.py ADDRESS     # of a studio that runs
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

from playwright.sync_api import sync_playwright

NODES = 200
FRAMES = """() => new Promise((done) => {
  const times = []; let last = performance.now();
  const tick = (now) => {
    times.push(now - last); last = now;
    if (times.length < 120) requestAnimationFrame(tick); else done(times);
  };
  requestAnimationFrame(tick);
})"""


def many(page: Any) -> None:
    """Makes a project of many nodes: words, which need no pictures, and sums of missing ones."""
    nodes = {
        f"n{i}": {"kind": "sum", "id": f"n{i}", "x": 320 * (i % 20), "y": 400 * (i // 20),
                  "inputs": [f"n{i - 1}" if i % 20 else None, None], "weights": [0.5, 0.5]}
        for i in range(NODES)
    }  # fmt: skip
    document = {"format": 1, "nodes": nodes, "active": None, "pinned": [], "photos": [], "pins": [],
                "settings": {"model": None, "seed": 0, "enlarge": 1}}  # fmt: skip
    made = page.evaluate(
        """async (document) => (await fetch("/api/v1/projects", { method: "POST",
        headers: { "content-type": "application/json" }, body: JSON.stringify({ name: "many", document }) })).json()""",
        document,
    )
    page.goto(page.url.split("#")[0] + f"#/p/{made['id']}")
    page.wait_for_selector(".react-flow__node")  # those in sight alone are drawn
    page.keyboard.press("1")
    page.wait_for_selector(".react-flow__node >> nth=20")
    page.wait_for_timeout(1500)


def main() -> None:
    """Runs the script."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        paints = []
        for _ in range(5):
            page.goto(sys.argv[1])
            page.wait_for_selector("h1")
            entry = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
            page.wait_for_timeout(300)
            paints.append(page.evaluate(entry))
        print(f"first contentful paint: {statistics.median(paints):.0f} ms (five loads: {[round(p) for p in paints]})")
        many(page)
        page.evaluate("window.frames_ = undefined")
        page.mouse.move(900, 500)
        page.evaluate(f"window.times = ({FRAMES})()")
        for i in range(60):
            page.mouse.wheel(20 if i < 30 else -20, 10)
        times = page.evaluate("window.times")
        print(f"{page.locator('.react-flow__node').count()} of {NODES} nodes drawn, panned: {told(times)}")
        box = page.locator(".react-flow__node").nth(40).bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 4)
        page.mouse.down()
        page.evaluate(f"window.times = ({FRAMES})()")
        for i in range(60):
            page.mouse.move(box["x"] + box["width"] / 2 + 3 * i, box["y"] + 4 + i)
        print(f"one of them dragged: {told(page.evaluate('window.times'))}")
        browser.close()


def told(times: list[float]) -> str:
    """Returns frames in words."""
    ordered = sorted(times)
    median, late = statistics.median(ordered), ordered[int(0.95 * len(ordered))]
    return f"median frame {median:.1f} ms, 95th percentile {late:.1f} ms"


if __name__ == "__main__":
    main()
