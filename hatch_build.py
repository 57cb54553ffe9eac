"""Makes README.md the page of the package, and the studio's page a part of the wheel.

Nothing on the package's page may be a link that only the repository has.

With POPS_REPOSITORY in the environment (the repository's address, such as https://host/owner/pops) links and pictures
become absolute, to the tag of this version, and the address becomes the project's URLs. Without it, pictures are left
out and links become plain text.

The studio's page (src/pops/server/web) is built by studio/build.py, unless it is there already or the install is an
editable one.
"""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<path>(?!https?:|mailto:|#)[^)\s]+)\)")


class PageHook(MetadataHookInterface):  # hatchling has no annotations here
    """Sets the two fields that pyproject.toml calls dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fills in the page, and the addresses where there is one."""
        address = os.environ.get("POPS_REPOSITORY", "").rstrip("/")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        tag = f"v{metadata['version']}"
        metadata["readme"] = {"content-type": "text/markdown", "text": page(text, address, tag)}
        metadata["urls"] = urls(address, tag)


class StudioHook(BuildHookInterface[Any]):
    """Builds the studio's page, which git does not hold."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds it where it is not there."""
        root = Path(self.root)
        if version == "editable" or (root / "src/pops/server/web/index.html").is_file():
            return
        builder = studio_builder(root)
        try:
            builder.build()
        except builder.CannotBuild as error:
            raise SystemExit(f"error: {error}") from None


def studio_builder(root: Path) -> ModuleType:
    """Returns the module studio/build.py."""
    spec = importlib.util.spec_from_file_location("pops_studio_build", root / "studio" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
