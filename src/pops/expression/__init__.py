"""The language of generative equations: nodes, grammar, trees of plain data, the planner, and figures.

`parse(text)` gives an `Expression`; what stands below it is in the modules, from nodes.py up to figure.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pops.expression import grammar, trees
from pops.expression.nodes import Node

if TYPE_CHECKING:
    from pops.expression.plan import Plan
    from pops.expression.resolve import SpecLike

__all__ = ["Expression", "load", "parse"]


@dataclass(frozen=True)
class Expression:
    """A generative equation: its tree, and the text it came from, for the carets of errors. Prints itself."""

    root: Node
    text: str = field(default="", compare=False, repr=False)

    def plan(self, operators: Mapping[str, SpecLike] | None = None) -> Plan:
        """The levels in which operators with these specs compute it (None: unchecked)."""
        from pops.expression.plan import plan

        return plan(self.root, operators, text=self.text)

    def tree(self) -> Any:
        """Plain data for YAML or JSON."""
        return trees.to_tree(self.root)

    def __str__(self) -> str:
        return grammar.to_text(self.root)


def parse(text: str) -> Expression:
    """The expression that `text` writes; ExpressionError with span and advice where it writes none."""
    return Expression(grammar.parse(text), text)


def load(path: str | Path) -> Expression:
    """The expression in a .yaml or .json file."""
    return Expression(trees.load_expression(path))
