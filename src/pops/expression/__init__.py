"""The language of expressions: nodes, grammar, trees of plain data (YAML, JSON) and the planner.

`parse(text)` returns an `Expression`. The modules build on each other in this order: nodes, grammar, trees and
operands, resolve, plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pops.expression import grammar, trees
from pops.expression.nodes import Node

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


def parse(text: str) -> Expression:
    """Parses an expression; raises ExpressionError, with the place and what to do, if it is malformed."""
    return Expression(grammar.parse(text), text)


def load(path: str | Path) -> Expression:
    """Reads the expression in a .yaml or .json tree file; raises ExpressionError, naming the file, if it holds none."""
    return Expression(trees.load_expression(path))
