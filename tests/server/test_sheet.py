"""Images of the server drawn as one PNG, with labels and recipes."""

from __future__ import annotations

import io
import json

from PIL import Image

from servers import Live


def test_a_sheet_has_all_images_and_their_recipes(live: Live) -> None:
    job = live.ended(live.queue(f"photo:{live.upload()}", seeds=[3, 4], rendering={"steps": 1}))
    cells = [{"image": image["id"], "label": f"seed {seed}"} for image, seed in zip(job["images"], (3, 4), strict=True)]
    status, png = live.ask("POST", "/sheet", {"cells": cells, "title": "a photo, twice"})
    assert status == 200
    made = Image.open(io.BytesIO(png))
    assert made.format == "PNG" and made.width > 320 and "pops" not in made.info
    told = json.loads(made.info["pops-sheet"])
    assert [row["label"] for row in told] == ["seed 3", "seed 4"]
    assert [(row["recipe"]["seeds"], row["recipe"]["image"]) for row in told] == [([3, 4], 0), ([3, 4], 1)]
    bare = Image.open(io.BytesIO(live.ask("POST", "/sheet", {"cells": cells})[1]))
    assert made.height > bare.height and made.width == bare.width
    assert live.ask("POST", "/sheet", {"cells": [{"image": f"{'0' * 32}-0", "label": ""}]})[0] == 404
    assert live.ask("POST", "/sheet", {"cells": []})[0] == 422
    assert live.ask("POST", "/sheet", {"cells": cells * 65})[0] == 422
