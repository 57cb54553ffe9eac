"""Reads the plain data of tree files, JSON or YAML, with limits: of anyone's file, quickly, or refused in one line.

Of YAML it reads what a tree needs: mappings, lists, strings, numbers, null, and aliases. A date is a string; a merge
key (<<) and tags of other types mean nothing in a tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pops.errors import ExpressionError, shown
from pops.files import parse_json, read_bytes, reason

MAX_FILE = 2**20  # bytes of a tree file
MAX_NESTED = 800  # lists and mappings within one another; four for each level of an expression
MAX_VALUES = 20_000  # in a tree, an alias's counted at each of its uses
YAML = (".yaml", ".yml")
_TAGS = re.compile(r"tag:yaml.org,2002:(null|bool|int|float|str|timestamp|map|seq|merge|value)|!|")


def read_data(path: str | Path) -> object:
    """Returns the data in a .yaml, .yml or .json file; ExpressionError, without the file's name, if it has none."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", *YAML):
        raise ExpressionError(f"a tree file ends in .yaml or .json, got '{shown(suffix, 20)}'; rename it")
    try:
        text = read_bytes(path, MAX_FILE).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ExpressionError(f"it cannot be read (no UTF-8 text at byte {error.start}); save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise ExpressionError(f"it cannot be read ({reason(error)}); check the path") from None
    if suffix in YAML:
        return parse_yaml(text)
    try:
        data: object = parse_json(text, MAX_NESTED)
        return data
    except ValueError as error:
        raise ExpressionError(f"invalid JSON ({shown(error)}); correct it") from None


def parse_yaml(text: str) -> object:
    """Returns the data of one YAML document; ExpressionError for anything else, and beyond the limits."""
    import yaml

    # The loader in C is a hundred times as fast; some systems' PyYAML lacks it.
    kind: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader = None
    try:
        loader = kind(text)
        return _Composer(loader).run()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        told = getattr(error, "problem", None) or reason(error)
        raise ExpressionError(f"invalid YAML{line} ({shown(told)}); correct it") from None
    except RecursionError:  # in the loader of Python's own
        raise ExpressionError(f"nested more than {MAX_NESTED} deep; split it up") from None
    finally:
        if loader is not None:
            loader.dispose()


@dataclass
class _Open:
    """A list or mapping whose end has not been read. key: the one that waits for its value."""

    value: Any
    key: list[Any] = field(default_factory=list)

    def add(self, value: Any, line: int) -> None:
        if isinstance(self.value, list):
            self.value.append(value)
        elif self.key:
            self.value[self.key.pop()] = value
        elif isinstance(value, (list, dict)):
            raise _mistake("a key must be a string", line)
        elif value == "<<":
            raise _mistake("merge keys (<<) mean nothing in a tree; write the keys out", line)
        elif value in self.value:
            raise _mistake(f"the key {shown(repr(value), 40)} is there twice; keep one", line)
        else:
            self.key.append(value)


class _Composer:
    """Makes data of YAML's events, without recursion."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.anchors: dict[str, Any] = {}
        self.open: list[_Open] = []
        self.root: list[Any] = []
        self.count = 0

    def run(self) -> object:
        import yaml

        for event in self._events():
            line = event.start_mark.line + 1
            if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                done = self.open.pop()
                self._put(done.value, line)
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in self.anchors:
                    raise _mistake(f"there is no anchor &{shown(event.anchor, 40)} before its alias", line)
                self._put(self.anchors[event.anchor], line)
            elif isinstance(event, yaml.ScalarEvent):
                value = self._scalar(event, line)
                self._name(event.anchor, value)
                self._put(value, line)
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                made: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
                self._check_tag(event.tag, line)
                self._name(event.anchor, made)
                self.open.append(_Open(made))
                if len(self.open) > MAX_NESTED:
                    raise _mistake(f"nested more than {MAX_NESTED} deep; split it up", line)
            elif isinstance(event, yaml.DocumentStartEvent) and self.root:
                raise _mistake("a second document begins; a tree file holds one", line)
        return self.root[0] if self.root else None

    def _events(self) -> Iterator[Any]:
        while self.loader.check_event():
            yield self.loader.get_event()

    def _name(self, anchor: str | None, value: Any) -> None:
        if anchor is not None:
            self.anchors[anchor] = value

    def _put(self, value: Any, line: int) -> None:
        self.count += 1
        if self.count > MAX_VALUES:
            raise _mistake(f"more than {MAX_VALUES} values; split the tree up", line)
        if self.open:
            self.open[-1].add(value, line)
        else:
            self.root.append(value)

    def _scalar(self, event: Any, line: int) -> object:
        """Returns a string, a number, a truth value or None."""
        from yaml import ScalarNode

        text: str = event.value
        tag = event.tag
        if tag is None or tag == "!":
            tag = self.loader.resolve(ScalarNode, text, event.implicit)
        self._check_tag(tag, line)
        kind = tag.rpartition(":")[2]
        if kind == "null":
            return None
        if kind not in ("bool", "int", "float"):
            return text
        if len(text) > 300:
            raise _mistake(f"a number of {len(text)} characters is too long; put it in quotes if it is a text", line)
        try:
            return getattr(self.loader, f"construct_yaml_{kind}")(ScalarNode(tag, text))
        except (ValueError, KeyError, IndexError, OverflowError):
            told = f"{shown(text, 40)!r} is no {kind}; put it in quotes if it is a text"
            raise _mistake(told, line) from None

    def _check_tag(self, tag: str | None, line: int) -> None:
        if _TAGS.fullmatch(tag or "") is None:
            raise _mistake(f"the tag {shown(tag, 60)} means nothing in a tree; remove it", line)


def _mistake(what: str, line: int) -> ExpressionError:
    return ExpressionError(f"line {line}: {what}")
