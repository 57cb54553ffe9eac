"""Damaged inputs: bytes, texts and JSON, changed at random by a generator with a seed."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

INTEGERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**62, 2**64 - 1)
LARGEST = 100_000  # bytes of a mutated text
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3.5, 5, 1e308, -0.0, 2**31, 2**63, 2**64, 10**299, "", " ", "\0", "\ud800", "a\nb",
    "é", "../x", "/dev/zero", "/", "~", "-", "$x", "_", "1e999", "x" * 5000, [], {}, [None], [[]], {"": None},
    [0] * 300,
)  # fmt: skip
SCALARS = (
    "~",
    "null",
    ".inf",
    ".nan",
    "0o99",
    "0b",
    "1:1:1",
    "2026-13-45",
    "=",
    "<<",
    "!!set",
    "&a",
    "*a",
    "? ",
    "|",
    ">",
)
NUMBERS = ("9" * 300, "9" * 5000, "1e308", "-1", "0", "1e999", "0.1", ".", str(2**64))
PIECES = (
    "(", ")", ",", "@", "=", "+", "-", "*", ";", "let ", "_", "$", "'", '"', "\\", "#", "\n", "\0", "é", "\u202e",
    "\U0001f600", "9" * 400, "1e999", "0.5*", "text(", "mix(", "union(", ".png", "nu=", "@7", "{", "}", "[", "]", ":",
    "- ",
)  # fmt: skip


def mutated_bytes(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Changes one of the seeds in one to six places."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        if not data:
            break
        # Half of the changes hit the beginning, where headers are.
        at = rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 200))
        match rng.randrange(8):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                width = rng.choice((2, 4, 8))
                value = rng.choice(INTEGERS) % 2 ** (8 * width)
                data[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
            case 3:
                del data[at : at + rng.choice((1, 2, 4, 16, rng.randrange(1, len(data) + 1)))]
            case 4:
                data[at:at] = rng.randbytes(rng.choice((1, 4, 32)))
            case 5:
                piece = data[at : at + rng.randrange(1, 64)]
                data[at:at] = piece * rng.choice((1, 2, 50))
            case 6:
                del data[at:]
            case _:
                other = rng.choice(seeds)
                start = rng.randrange(len(other)) if other else 0
                data[at:] = other[start:]
    return bytes(data)


def mutated_text(rng: random.Random, seeds: Sequence[str], pieces: Sequence[str] = PIECES) -> str:
    """Changes one of the seeds in one to six places, now and then until it is long."""
    text = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at, end = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        piece = rng.choice(pieces)
        match rng.randrange(8):
            case 0 | 1:
                text = text[:at] + piece + text[at:]
            case 2:
                text = text[:at] + text[at + rng.randint(1, 4) :]
            case 3:
                text = text[:at] + text[end:]
            case 4:
                text = text[:at] + text[at:end] * rng.choice((2, 3, 40)) + text[end:]
            case 5:
                numbers = list(re.finditer(r"[\d.]+", text))
                if numbers:
                    number = rng.choice(numbers)
                    text = text[: number.start()] + rng.choice(NUMBERS) + text[number.end() :]
            case 6:
                other = rng.choice(seeds)
                text = text[:at] + other[rng.randint(0, len(other)) :]
            case _:
                if rng.random() < 0.1:  # as long as an input may be
                    part = text[at:end] or piece
                    text = text[:at] + part * ((LARGEST - len(text)) // len(part)) + text[at:]
                else:
                    text = piece + text
    return text[:LARGEST]


def mutated_json(rng: random.Random, value: Any) -> str:
    """Changes a JSON value in one to four places, keeps it JSON, and returns its text; numbers may be huge."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _changed(rng, value)
    return json.dumps(value, ensure_ascii=rng.random() < 0.9, allow_nan=True)


def _changed(rng: random.Random, value: Any) -> Any:
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.15:
        return _odd(rng, value)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        if rng.random() < 0.2:
            return value[:at] + value[at + 1 :] if rng.random() < 0.5 else value * rng.choice((2, 50))
        return [*value[:at], _changed(rng, value[at]), *value[at + 1 :]]
    key = rng.choice(list(value))
    match rng.randrange(8):
        case 0:
            return {k: v for k, v in value.items() if k != key}
        case 1:
            return {**value, rng.choice(("", "x", key + "s", "version", "\0", "k" * 500)): _odd(rng, value[key])}
        case 2:
            return {**value, key: value[rng.choice(list(value))]}
    return {**value, key: _changed(rng, value[key])}


def _odd(rng: random.Random, value: Any) -> Any:
    if rng.random() < 0.1:
        for _ in range(rng.choice((5, 90, 400))):
            value = [value] if rng.random() < 0.5 else {"a": value}
        return value
    if isinstance(value, str) and rng.random() < 0.4:
        return mutated_text(rng, [value])[:20_000]
    if isinstance(value, (int, float)) and rng.random() < 0.4:
        return rng.choice(
            (-value, value + 1, value * 1000, 1 / (value + 1) if value != -1 else 0, float("inf"), float("nan"))
        )
    return rng.choice(ODD)
