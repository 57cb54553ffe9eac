"""pops: compose pictures the way one composes an equation.

    import pops
    p = pops.load("tiny")
    image = p("texturing(teapot.png, tiger.png)", seed=0)[0]

Every name is imported on first use, so that `import pops` is quick and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pops.version import __version__ as __version__

if TYPE_CHECKING:
    from pops.embedding import Embedding as Embedding
    from pops.errors import CheckpointError as CheckpointError
    from pops.errors import ConfigError as ConfigError
    from pops.errors import EmbeddingError as EmbeddingError
    from pops.errors import ExpressionError as ExpressionError
    from pops.errors import ModelError as ModelError
    from pops.errors import OperandError as OperandError
    from pops.errors import PhotoError as PhotoError
    from pops.errors import PopsError as PopsError
    from pops.errors import SpaceError as SpaceError
    from pops.expression import Expression as Expression
    from pops.expression import parse as parse
    from pops.magicmix.mix import MagicMix as MagicMix
    from pops.operators.operator import Operator as Operator
    from pops.operators.spec import OperatorSpec as OperatorSpec
    from pops.recipe import Recipe as Recipe
    from pops.render.base import Renderer as Renderer
    from pops.result import Result as Result
    from pops.studio import Pops as Pops
    from pops.studio import load as load


_HOMES = {
    "load": "pops.studio",
    "Pops": "pops.studio",
    "Recipe": "pops.recipe",
    "Result": "pops.result",
    "Embedding": "pops.embedding",
    "Expression": "pops.expression",
    "parse": "pops.expression",
    "Operator": "pops.operators.operator",
    "OperatorSpec": "pops.operators.spec",
    "Renderer": "pops.render.base",
    "MagicMix": "pops.magicmix.mix",
    "PopsError": "pops.errors",
    "ExpressionError": "pops.errors",
    "OperandError": "pops.errors",
    "PhotoError": "pops.errors",
    "EmbeddingError": "pops.errors",
    "SpaceError": "pops.errors",
    "ModelError": "pops.errors",
    "CheckpointError": "pops.errors",
    "ConfigError": "pops.errors",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pops' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
