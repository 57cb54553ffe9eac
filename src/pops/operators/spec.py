"""What an operator is, apart from its weights: roles of its operands, options, training recipe. No torch.

`BUILTIN` is the one table of pOps' operators (arXiv 2406.01300); no other code names an operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from pops.errors import CheckpointError, OperandError, ensure
from pops.prior.options import MAX_STRENGTH, check_options

Kind = Literal["image", "text", "any"]
STORED = ("image", "text")  # kinds of an operator with weights
LOSSES = ("mse", "instruct")


@dataclass(frozen=True)
class Role:
    """One operand's place: its name in messages, and what belongs there: an image, words, or either ("any")."""

    name: str
    kind: Kind = "image"

    def __post_init__(self) -> None:
        ensure(bool(self.name), "a role needs a name", OperandError)
        ensure(self.kind in (*STORED, "any"), f"a role's kind is image, text or any, got {self.kind!r}", OperandError)


@dataclass(frozen=True)
class TrainingRecipe:
    """How training one operator differs from training another: probabilities are per sample, in [0, 1]."""

    drop_each: float = 0.0  # each operand, independently, becomes a zero token
    drop_together: float = 0.0  # all operands become zero tokens
    loss: str = "mse"  # or "instruct": MSE to the target + text_weight * (1 - cosine to a text)
    random_share: float = 0.0  # a random image becomes the target, the operands become zero tokens
    random_keeps_first: float = 0.0  # of random_share: operand 0 becomes that image

    def __post_init__(self) -> None:
        for name in ("drop_each", "drop_together", "random_share", "random_keeps_first"):
            value = getattr(self, name)
            ensure(0 <= value <= 1, f"{name} must be in [0, 1], got {value}")
        ensure(self.loss in LOSSES, f"unknown loss {self.loss!r}; choose from {', '.join(LOSSES)}")


class Sampling(NamedTuple):
    """How an operator samples where a call does not say."""

    steps: int
    guidance: float
    strength: float


@dataclass(frozen=True)
class OperatorSpec:
    """An operator's name, the roles of its operands in order, and its defaults.

    repeat: the last role stands for further operands, too, up to `most` in all (None: any number). guidance <= 1
    means none; steps are the sampler's; strength: how far the result is from the mean of its image operands, as a
    multiple of what the prior says (see operators.operator). partial_guidance and partial_steps are the defaults if an
    operand is missing (None: the same), since many results are then right; strength is 1 there.
    """

    name: str
    roles: tuple[Role, ...]
    repeat: bool = False
    most: int | None = None
    guidance: float = 1.0
    steps: int = 25
    strength: float = 1.0
    partial_guidance: float | None = None
    partial_steps: int | None = None
    summary: str = ""
    training: TrainingRecipe = field(default_factory=TrainingRecipe)

    def __post_init__(self) -> None:
        ensure(self.name.isidentifier(), f"an operator's name is one plain word, got {self.name!r}", OperandError)
        ensure(len(self.roles) > 0, f"operator {self.name} needs at least one role", OperandError)
        for missing in (False, True):
            own = self.defaults(missing)
            ensure(own.steps >= 1, f"operator {self.name}: steps must be at least 1, got {own.steps}", OperandError)
            ensure(own.guidance >= 0, f"operator {self.name}: guidance is negative: {own.guidance}", OperandError)
        told = f"operator {self.name}: strength must be from 0 to {MAX_STRENGTH:g}, got {self.strength}"
        ensure(0 <= self.strength <= MAX_STRENGTH, told, OperandError)
        if self.most is not None:
            ensure(
                self.repeat and self.most >= len(self.roles),
                f"operator {self.name}: most={self.most} needs repeat and at least {len(self.roles)} roles",
                OperandError,
            )

    def defaults(self, missing: bool) -> Sampling:
        """Returns the settings of sampling; missing: whether an operand is."""
        steps = self.partial_steps if missing else None
        guidance = self.partial_guidance if missing else None
        return Sampling(
            self.steps if steps is None else steps,
            self.guidance if guidance is None else guidance,
            1.0 if missing else self.strength,
        )

    @property
    def arity(self) -> tuple[int, int | None]:
        """Fewest and most operands; None for no limit."""
        n = len(self.roles)
        return (n, self.most if self.repeat else n)

    def roles_for(self, count: int) -> tuple[Role, ...]:
        """Returns the role of each of `count` operands; OperandError if the operator takes another number."""
        fewest, most = self.arity
        if count < fewest or (most is not None and count > most):
            names = ", ".join(role.name for role in self.roles) + (", ..." if self.repeat else "")
            wanted = f"{fewest}" if most == fewest else f"{fewest} or more" if most is None else f"{fewest} to {most}"
            plural = "operand" if wanted == "1" else "operands"
            raise OperandError(f"{self.name} takes {wanted} {plural} ({names}), got {count}; write _ for a missing one")
        return self.roles + (self.roles[-1],) * (count - fewest)

    def validate(self, kinds: Sequence[Kind | None]) -> tuple[Role, ...]:
        """Returns the roles of operands of these kinds (None: a missing one); OperandError if a kind does not fit."""
        roles = self.roles_for(len(kinds))
        for position, (role, kind) in enumerate(zip(roles, kinds, strict=True), start=1):
            if kind not in (None, role.kind) and role.kind != "any":
                wanted = "an image" if role.kind == "image" else "a word"
                got = "words" if kind == "text" else "an image"
                raise OperandError(f"{self.name}: operand {position} ({role.name}) must be {wanted}, got {got}")
        return roles

    def check_options(self, options: Mapping[str, int | float | str]) -> None:
        """Checks the options of one call; ConfigError for an unknown name or a bad value."""
        check_options(options)

    def check_text(self, text: str) -> None:
        """Checks a word for a text role: any word will do."""

    def to_json(self) -> dict[str, Any]:
        """Returns plain values, as operator.json stores them; a strength of 1 is left out, as before there was one."""
        return {key: value for key, value in asdict(self).items() if key != "strength" or value != 1}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, where: str = "the operator's spec") -> OperatorSpec:
        """Reads what `to_json` returned; CheckpointError, naming `where`, for anything else."""
        try:
            roles = tuple(Role(**role) for role in data["roles"])
            for role in roles:
                ensure(role.kind in STORED, f"a stored role is image or text, got {role.kind!r}", OperandError)
            training = TrainingRecipe(**data.get("training", {}))
            rest = {key: value for key, value in data.items() if key not in ("roles", "training")}
            return cls(roles=roles, training=training, **rest)
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{where} cannot be read ({error}); export the operator again") from error


_ROWS = (
    OperatorSpec(
        "texturing",
        (Role("object"), Role("texture")),
        guidance=8.0,
        summary="the object painted with the texture",
        training=TrainingRecipe(drop_each=0.25, random_share=0.2, random_keeps_first=0.5),
    ),
    OperatorSpec(
        "union",
        (Role("image a"), Role("image b")),
        guidance=8.0,
        summary="one image holding both",
        training=TrainingRecipe(drop_together=0.2, random_share=0.1),
    ),
    OperatorSpec(
        "scene",
        (Role("object"), Role("scene")),
        guidance=1.0,
        summary="the object placed in a similar scene",
        training=TrainingRecipe(drop_together=0.1, random_share=0.1),
    ),
    OperatorSpec(
        "instruct",
        (Role("object"), Role("word", "text")),
        guidance=1.0,
        summary="the object with the adjective applied",
        training=TrainingRecipe(drop_together=0.2, loss="instruct"),
    ),
    OperatorSpec(
        "clothes",
        (Role("garment"),),
        repeat=True,
        most=12,
        guidance=1.0,
        summary="a person wearing the garments",
        training=TrainingRecipe(drop_together=0.2),
    ),
)
BUILTIN: dict[str, OperatorSpec] = {spec.name: spec for spec in _ROWS}
