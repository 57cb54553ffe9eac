"""Stage 2a': learns a small byte-pair tokenizer in CLIPTokenizer's files (vocab.json, merges.txt) from captions."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from pops.toybox.pairs import family
from pops.toybox.words import captions
from recipes.tiny import settings

START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # CLIP's own splitting of text into words


def write(folder: Path, families: int = 3000, merges: int = 900) -> CLIPTokenizer:
    """Learns merges on captions of toybox and writes the folder; the rest of the vocabulary is CLIP's bytes."""
    rng = random.Random(0)
    lines = [c for seed in range(families) for s in family(seed).pictures().values() for c in captions(s)]
    rng.shuffle(lines)
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) * 2 + merges, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator(lines, trainer)
    pairs = [tuple(m) for m in json.loads(learner.to_str())["model"]["merges"]][:merges]
    words = [*alphabet, *(c + "</w>" for c in alphabet), *("".join(p) for p in pairs), START, END]
    vocabulary = {w: i for i, w in enumerate(dict.fromkeys(words))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(p) for p in pairs) + "\n")
    tokenizer = CLIPTokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        model_max_length=77,
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def load_or_write() -> CLIPTokenizer:
    folder = settings.WORK / "tokenizer"
    if not (folder / "tokenizer_config.json").exists():
        return write(folder)
    return CLIPTokenizer.from_pretrained(folder)
