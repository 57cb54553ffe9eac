"""Makes README.md the page of the package: nothing on it may be a link that only the repository has.

With POPS_REPOSITORY in the environment (the repository's address, such as https://host/owner/pops) links and pictures
become absolute, to the tag of this version, and the address becomes the project's URLs. Without it, pictures are left
out and links become plain text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<path>(?!https?:|mailto:|#)[^)\s]+)\)")


class PageHook(MetadataHookInterface):  # type: ignore[misc]  # hatchling has no annotations here
    """Sets the two fields that pyproject.toml calls dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fills in the page, and the addresses where there is one."""
        address = os.environ.get("POPS_REPOSITORY", "").rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        tag = f"v{metadata['version']}"
        metadata["readme"] = {"content-type": "text/markdown", "text": page(text, address, tag)}
        metadata["urls"] = urls(address, tag)


def page(text: str, address: str, tag: str) -> str:
    """Returns the README with absolute links, or without relative ones where there is no address."""

    def absolute(link: re.Match[str]) -> str:
        if not address:
            return "" if link["picture"] else link["text"]
        kind = "raw" if link["picture"] else "blob"
        return f"{link['picture']}[{link['text']}]({address}/{kind}/{tag}/{link['path']})"

    return re.sub(r"\n{3,}", "\n\n", LINK.sub(absolute, text))


def urls(address: str, tag: str) -> dict[str, str]:
    """Returns the project's addresses; none without the repository's."""
    if not address:
        return {}
    return {
        "Homepage": address,
        "Documentation": f"{address}/tree/{tag}/docs",
        "Changelog": f"{address}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{address}/issues",
    }
