"""Windows of the studio for tests: a browser's page, and how people handle it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers import ROOT

EXAMPLES = ROOT / "src" / "pops" / "examples"
PICTURE = 120_000  # milliseconds in which a picture must come, on a machine that has other work


def example(name: str) -> Path:
    """Returns an example photo of the package, or of the clone."""
    return next(folder / name for folder in (ROOT / "examples", EXAMPLES) if (folder / name).is_file())


@dataclass
class Window:
    """A page of the studio, and how people handle it."""

    page: Any
    address: str

    def open(self, path: str = "") -> Window:
        """Goes to the first page, or to a project."""
        self.page.goto(f"{self.address}/{path}")
        self.page.wait_for_selector(".home h1, .studio")
        return self

    def drop(self, *files: Path, at: tuple[int, int] = (300, 300)) -> None:
        """Drops files on the page, as from a folder."""
        told = [{"name": f.name, "data": base64.b64encode(f.read_bytes()).decode()} for f in files]
        self.page.evaluate(
            """([files, [x, y]]) => {
              const data = new DataTransfer();
              for (const { name, data: text } of files) {
                const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
                const type = name.endsWith(".png") ? "image/png" : "";
                data.items.add(new File([bytes], name, { type }));
              }
              for (const kind of ["dragover", "drop"]) {
                const event = new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true,
                                                    clientX: x, clientY: y });
                document.elementFromPoint(x, y).dispatchEvent(event);
              }
            }""",
            [told, at],
        )

    def start(self, *files: Path) -> Window:
        """Opens the first page and drops files on it: a new project."""
        self.open()
        self.drop(*files)
        self.page.wait_for_selector(f".react-flow__node >> nth={len(files) - 1}")
        return self

    def empty(self) -> Window:
        """Opens the first page and then an empty canvas."""
        self.open()
        self.page.get_by_role("button", name="Empty canvas").click()
        self.page.wait_for_selector(".studio")
        return self

    def nodes(self) -> int:
        """Returns how many nodes the canvas shows."""
        return int(self.page.locator(".react-flow__node").count())

    def line(self) -> str:
        """Returns the expression in the line."""
        return str(self.page.locator("#expression").input_value())

    def reads(self, text: str) -> None:
        """Waits until the line has this expression."""
        from playwright.sync_api import expect

        expect(self.page.locator("#expression")).to_have_value(text, timeout=20_000)

    def shows(self, count: int) -> None:
        """Waits until the canvas has so many nodes."""
        from playwright.sync_api import expect

        expect(self.page.locator(".react-flow__node")).to_have_count(count, timeout=20_000)

    def write(self, text: str) -> None:
        """Writes an expression, and applies it."""
        self.page.locator("#expression").fill(text)
        self.page.locator("#expression").press("Enter")

    def picture(self, title: str) -> Any:
        """Waits for the picture of the node with this title; returns its frame."""
        found = self.page.locator(".react-flow__node", has_text=title).locator(".frame img.arrives").first
        found.wait_for(timeout=PICTURE)
        return found

    def saved(self) -> None:
        """Waits until all is saved."""
        self.page.wait_for_timeout(100)
        self.page.wait_for_selector(".saving:text-is('Saved')")

    def wire(self, source: Any, target: Any) -> None:
        """Draws a wire with the mouse from one handle to another, and holds it there."""
        self.page.wait_for_timeout(300)  # until the canvas stands still
        a, b = source.bounding_box(), target.bounding_box()
        self.page.mouse.move(a["x"] + a["width"] / 2, a["y"] + a["height"] / 2)
        self.page.mouse.down()
        self.page.mouse.move(b["x"] + 40, b["y"] - 10, steps=4)
        self.page.mouse.move(b["x"] + b["width"] / 2, b["y"] + b["height"] / 2, steps=4)
