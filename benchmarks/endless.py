"""The same weights with an end that never comes, so that both sides' answers have one length.

A plain greedy request cannot forbid the end of an answer, and a bias on it would slow one side's
sampler. So the folder is copied by links, its end token becomes the padding token, which a model
never learns to say, and the other control tokens are text like any other: `<end_of_turn>`, which
is nothing to a reader, becomes `[end_of_turn]`, of the same number, so that a stream goes on
visibly. Angle brackets would not do: tokenizer libraries take such names for control tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_CONFIGS = ("config.json", "generation_config.json")
_SPOKEN = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_LEFT_OUT = ("special_tokens_map.json", "added_tokens.json", "tokenizer.model")
_KEPT = ("pad_token", "bos_token", "unk_token")


def endless(model: Path, folder: Path) -> Path:
    """Makes `folder`: links to the files of `model`, but own configs. Both lie on one machine."""
    folder.mkdir(parents=True)
    padding = json.loads((model / "config.json").read_text()).get("pad_token_id", 0)
    names = json.loads((model / "tokenizer_config.json").read_text())
    kept = {_text(names[key]) for key in _KEPT if names.get(key)}
    spoken = _control_tokens(model) - kept
    for file in sorted(model.iterdir()):
        target = folder / file.name
        if not file.is_file() or file.name in _LEFT_OUT:
            continue
        if file.name in _CONFIGS:
            _write(target, {**json.loads(file.read_text()), "eos_token_id": padding})
        elif file.name in _SPOKEN:
            target.write_text(_renamed(file.read_text(), spoken))
        else:
            target.symlink_to(file.resolve())
    _make_ordinary(folder, kept)
    return folder


def _control_tokens(model: Path) -> set[str]:
    added = json.loads((model / "tokenizer.json").read_text()).get("added_tokens", [])
    return {token["content"] for token in added if token["special"]}


def _renamed(text: str, spoken: set[str]) -> str:
    for name in spoken:
        if name.startswith("<") and name.endswith(">"):
            text = text.replace(name, f"[{name[1:-1]}]")
    return text


def _make_ordinary(folder: Path, kept: set[str]) -> None:
    """Takes the control tokens' mark away, and their names, which would make a loader set it."""
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    _unmark(content.get("added_tokens", []), kept)
    _write(file, content)
    file = folder / "tokenizer_config.json"
    content = {
        key: value
        for key, value in json.loads(file.read_text()).items()
        if not key.endswith(("_token", "_special_tokens")) or key in _KEPT or key.startswith("add_")
    }
    _unmark(content.get("added_tokens_decoder", {}).values(), kept)
    _write(file, {**content, "eos_token": content.get("pad_token", "<pad>")})


def _unmark(tokens: Any, kept: set[str]) -> None:
    for token in tokens:
        token["special"] = token["content"] in kept


def _text(token: str | dict[str, Any]) -> str:
    return str(token["content"]) if isinstance(token, dict) else token


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False))
