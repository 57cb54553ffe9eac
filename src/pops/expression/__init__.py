"""The language of expressions: nodes, grammar, trees of plain data (YAML, JSON) and the planner.

`parse(text)` returns an `Expression`. The modules build on each other in this order: nodes, grammar, trees and
operands, resolve, plan; places and svg draw a tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pops.errors import ExpressionError
from pops.expression import grammar, trees
from pops.expression.nodes import Node
from pops.files import shown

if TYPE_CHECKING:
    from pops.expression.plan import Plan
    from pops.expression.resolve import SpecLike

__all__ = ["Expression", "load", "parse"]


@dataclass(frozen=True)
class Expression:
    """A parsed expression: its tree, and the text it was parsed from, which error messages quote.

    `str()` returns its canonical text.
    """

    root: Node
    text: str = field(default="", compare=False, repr=False)

    def plan(self, operators: Mapping[str, SpecLike] | None = None) -> Plan:
        """Returns the levels in which it is computed, checked against the operators' specs (None: unchecked).

        Raises ExpressionError for an unknown operator or name, or a wrong operand or option.
        """
        from pops.expression.plan import plan

        return plan(self.root, operators, text=self.text)

    def tree(self) -> trees.Tree:
        """Returns the expression as plain data for YAML or JSON."""
        return trees.to_tree(self.root)

    def __str__(self) -> str:
        return grammar.to_text(self.root)

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: the text, and the tree with names replaced by what they are bound to."""
        from pops.expression.svg import tree_svg
        from pops.notebook import block, code

        try:
            root = self.plan().root
        except ExpressionError:  # it is drawn as it is written; what is wrong shows when it is run
            root = self.root
        return block(code(self), tree_svg(root))


def parse(text: str) -> Expression:
    """Parses an expression; raises ExpressionError, with the place and what to do, if it is malformed."""
    if not isinstance(text, str):
        raise ExpressionError(_no_text(text))
    return Expression(grammar.parse(text), text)


def _no_text(value: object) -> str:
    """Returns the message for a value that is no text of an expression."""
    if isinstance(value, Path):
        return f"an expression is a text, got the path {shown(value)}; write it as text: str(path)"
    told = "None" if value is None else f"{shown(value, 40)} ({type(value).__name__})"
    return f"an expression is a text, such as 'union(a.png, b.png)', got {told}; write one"


def load(path: str | Path) -> Expression:
    """Reads the expression in a .yaml or .json tree file; raises ExpressionError, naming the file, if it holds none."""
    return Expression(trees.load_expression(path))
