"""Plain words and expressions are told apart: a faulty expression stays one, so that its message is shown."""

from __future__ import annotations

import pytest

from pops.expression.words import plain_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("teapot", "teapot"),
        ("a red  teapot ", "a red teapot"),
        ("a dog's bowl, on the grass!", "a dog's bowl, on the grass!"),
        ('"a (red) teapot"', "a (red) teapot"),
        ('a "STOP" sign', 'a "STOP" sign'),
        ("black-and-white cat", "black-and-white cat"),
        ("let it snow", "let it snow"),
        ("union", "union"),
        ("the U.S. flag", "the U.S. flag"),
        ("2 dogs", "2 dogs"),
        ("冬の山", "冬の山"),
        ("photo of a cat #2", "photo of a cat #2"),
    ],
)
def test_plain_words(text: str, words: str) -> None:
    assert plain_words(text) == words


@pytest.mark.parametrize(
    "text",
    [
        "a.png", "a red teapot.png", "texturing(a.png, b.png)", "texturing(a.png, b.png", "unoin a.png", "a.png b.png",
        'text("a red teapot")', "0.5*a.png + 0.5*b.png", "cat - dog", "cat + dog", "let t = a.png; t", "t@3", "$a", "_",
        "photos/teapot", "~/teapot", "C:\\teapot", "tea.pgn", "my tea.pgn", "e.safetensors", "", "  ", '""', "3", "!?",
    ],
)  # fmt: skip
def test_expressions_and_files_are_no_words(text: str) -> None:
    assert plain_words(text) is None
