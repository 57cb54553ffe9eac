"""The lock under which a process loads anything, imports included, and a property that is computed under it.

torch, diffusers and transformers keep state per process: modules that import on use, verbosity, the default device
while weights are read. Locks per object do not protect that, and two of them taken in opposite orders are a deadlock.
So there is one, which its thread may take again. Knows no model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")

LOADING = threading.RLock()
TOKENIZING = threading.Lock()  # around each call of a tokenizer: it keeps the call's padding and truncation on itself


class once(Generic[T]):
    """A property that is computed on its first use, under LOADING, and kept: for objects that threads share.

    functools.cached_property has a lock of its own on Python 3.11 and none later.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute, self.name = compute, compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, owner: None, kind: type | None = None) -> Self: ...
    @overload
    def __get__(self, owner: object, kind: type | None = None) -> T: ...
    def __get__(self, owner: object | None, kind: type | None = None) -> Self | T:
        """Returns the kept value; called only until there is one, which the owner's own dictionary then holds."""
        if owner is None:
            return self
        with LOADING:
            kept = vars(owner)
            if self.name not in kept:
                kept[self.name] = self.compute(owner)
            value: T = kept[self.name]
            return value
