"""Sphinx: the site of the documentation, built by `make docs` into build/docs.

The reference pages are written here from the code itself (docs/generate.py), into docs/reference/made/.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from pygments.lexer import RegexLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT), str(ROOT / "src")]

from hatch_build import LINK  # noqa: E402

from pops.version import __version__  # noqa: E402

project, author, copyright, release = "pops", "the pops developers", "the pops developers", __version__  # noqa: A001
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "sphinx_design"]
html_theme = "furo"
html_title = "pops"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#a4471b", "color-brand-content": "#a4471b"},
    "dark_css_variables": {"color-brand-primary": "#f0a06b", "color-brand-content": "#f0a06b"},
}
exclude_patterns = ["_static", "pictures"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
copybutton_prompt_text = "$ "
default_role = "code"  # docstrings write names in single backticks
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
highlight_language = "text"
suppress_warnings = ["config.cache"]


class ExpressionLexer(RegexLexer):  # type: ignore[misc]  # pygments has no annotations
    """The expression language of pops."""

    name, aliases = "pops", ["pops"]
    tokens = {  # noqa: RUF012
        "root": [
            (r"#[^\n]*", Comment),
            (r'"[^"\n]*"', String),
            (r"\b(let|in)\b", Keyword),
            (r"[\w./-]+\.(png|jpe?g|webp|safetensors)\b", Name.Constant),
            (r"[A-Za-z_][\w-]*(?=\()", Name.Function),
            (r"\d+(\.\d+)?", Number),
            (r"[+\-*=]", Operator),
            (r"[(),\[\]{};@:]", Punctuation),
            (r"\s+|[^\s]", Name),
        ]
    }


def to_repository(app: Any, docname: str, source: list[str]) -> None:
    """Makes links out of docs/ absolute, to the repository of POPS_REPOSITORY, or plain text where there is none."""
    address = os.environ.get("POPS_REPOSITORY", "").rstrip("/")
    folder = (HERE / docname).parent

    def changed(link: re.Match[str]) -> str:
        target = (folder / link["path"].split("#")[0]).resolve()
        if target.is_relative_to(HERE):
            return link[0]
        if not address:
            return link["text"]
        return f"[{link['text']}]({address}/blob/v{__version__}/{target.relative_to(ROOT).as_posix()})"

    source[0] = LINK.sub(changed, source[0])


def setup(app: Any) -> None:
    from docs.generate import write_pages

    app.add_lexer("pops", ExpressionLexer)
    app.connect("source-read", to_repository)
    app.connect("builder-inited", lambda app: write_pages(HERE / "reference" / "made"))
