"""Cautions: warnings about the operands of a run, as values. Nothing is refused for them."""

from __future__ import annotations

from dataclasses import dataclass

OUT_OF_DEPTH = "out-of-depth"  # the model was trained on nothing like this operand


@dataclass(frozen=True)
class Caution:
    """One operand that will not come out as the user expects, and a line that says why and what to do.

    operand: as the user wrote it, a path or a text; code: what kind of caution it is; words: of a text, those that the
    model does not know.
    """

    operand: str
    message: str
    code: str = OUT_OF_DEPTH
    words: tuple[str, ...] = ()

    def to_data(self) -> dict[str, str]:
        """Returns what --json prints."""
        return {"code": self.code, "operand": self.operand, "message": self.message}
