"""The one reader and writer of safetensors files: every fault is one line, of the caller's kind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

from pops.errors import CheckpointError, ModelError, PopsError
from pops.files import write_whole
from pops.loading.parts import TRANSFORMERS, check_network
from pops.tensors import MAX_HEADER, opened, read_tensors, write_tensors


def of_header(header: Any, content: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1, dtype=torch.int64)}, {"k": "v"})
    tensors, metadata = read_tensors(path)
    assert metadata == {"k": "v"} and tensors["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and tensors["b"].tolist() == [1]
    with opened(path) as file:
        assert file.shapes == {"a": (2, 3), "b": (1,)}
        with pytest.raises(ModelError, match="a.safetensors cannot be read"):
            file.read("c")


WHOLE = save({"a": torch.ones(4)})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"hello", "cut off"),
        (WHOLE[:-1], "."),
        (WHOLE[:20], "cut off"),
        (b"\xff" * 64, "cut off"),
        (of_header(b"{" * 1000), "."),
        (of_header(b"[" * 100_000), "."),
        (of_header(b" " * (MAX_HEADER + 1)), "header is larger than 16 MB"),
        (of_header({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, b"0"), "type F4"),
        (of_header({"a": {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}}, b"0"), "type F8_E8M0"),
        (of_header({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)), "type C64"),
        (of_header({"a": {"dtype": "X" * 5000, "shape": [1], "data_offsets": [0, 8]}}, bytes(8)), "."),
        (of_header({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}), "."),
    ],
)  # fmt: skip
def test_other_files_are_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"a\.safetensors cannot be read .*{says}.*; do this") as caught:
        read_tensors(path, CheckpointError, "do this")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_pipes_devices_and_folders_are_refused_unopened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, says in (
        (tmp_path / "pipe", "no regular file"),
        ("/dev/zero", "no regular file"),
        (tmp_path, "a folder"),
    ):
        with pytest.raises(ModelError, match=says):
            read_tensors(path)


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    """The writer of safetensors says it in an error of its own, which names no number."""
    import resource

    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.zeros(4)})
    limits, before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with (
            pytest.raises(PopsError, match="could not be written .*; nothing was left"),
            write_whole(path) as temporary,
        ):
            write_tensors(temporary, {"a": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert read_tensors(path)[0]["a"].shape == (4,) and [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize(
    ("config", "says"),
    [({"num_hidden_layers": 2000}, "num_hidden_layers is 2000, the weights have 1 tensors"),
     ({"layers_per_block": [1, 99]}, "layers_per_block is 99"), ({"vocab_size": 2**31}, "vocab_size is 2147483648")],
)  # fmt: skip
def test_a_config_that_asks_for_far_more_than_the_weights_hold(tmp_path: Path, config: Any, says: str) -> None:
    save_file({"a": torch.ones(4)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 49408, "num_hidden_layers": 1}))
    check_network(tmp_path, TRANSFORMERS)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=says):
        check_network(tmp_path, TRANSFORMERS)
