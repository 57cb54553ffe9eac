"""Where the nodes of a tree stand when it is drawn from left to right: columns and rows. Draws nothing itself."""

from __future__ import annotations

from itertools import pairwise

from pops.expression.nodes import Call, Node, Sum, Text, Word

SUM, TEXT = "sum", "text"


def inputs_of(node: Node) -> tuple[Node, ...]:
    """Returns what the tree shows left of a node; for a text, its prompt as a card."""
    return (Word(node.prompt or " "),) if isinstance(node, Text) and node.prompt.strip() else node.children()


def operator_of(node: Node) -> str:
    return node.operator if isinstance(node, Call) else SUM if isinstance(node, Sum) else TEXT


def _ordered(root: Node) -> list[Node]:
    """Returns every node once, operands first."""
    order: dict[Node, None] = {}
    stack: list[tuple[Node, bool]] = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.setdefault(node)
        elif node not in order:
            stack.append((node, True))
            stack += [(part, False) for part in reversed(inputs_of(node))]
    return list(order)


def places_of(root: Node) -> tuple[dict[Node, int], dict[Node, float]]:
    """Returns column (0 for the root, counted to the left) and row of every node, at least 1 apart in a column."""
    order = _ordered(root)
    columns = {root: 0}
    for node in reversed(order):
        for part in inputs_of(node):
            columns[part] = max(columns.get(part, 0), columns[node] + 1)
    rows: dict[Node, float] = {}
    leaves = 0
    for node in order:
        inputs = inputs_of(node)
        if inputs:
            rows[node] = sum(rows[part] for part in inputs) / len(inputs)
        else:
            rows[node], leaves = float(leaves), leaves + 1
    for column in range(max(columns.values()) + 1):  # move apart the nodes that shared operands have brought close
        members = sorted((node for node in order if columns[node] == column), key=rows.__getitem__)
        before = sum(rows[node] for node in members)
        for above, below in pairwise(members):
            rows[below] = max(rows[below], rows[above] + 1)
        shift = (sum(rows[node] for node in members) - before) / len(members)
        for node in members:
            rows[node] -= shift
    top = min(rows.values())
    return columns, {node: row - top for node, row in rows.items()}
