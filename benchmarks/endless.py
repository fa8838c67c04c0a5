"""The same weights with an end that never comes, so that both sides' answers have one length.

A plain greedy request cannot forbid the end of an answer, and a bias on it would slow one side's
sampler. So the folder is copied by links, and its end tokens become the padding token, which a
model never learns to say.
"""

from __future__ import annotations

import json
from pathlib import Path

_CONFIGS = ("config.json", "generation_config.json")


def endless(model: Path, folder: Path) -> Path:
    """Makes `folder`: links to all files of `model`, own configs. Both must be on one machine."""
    folder.mkdir(parents=True)
    padding = json.loads((model / "config.json").read_text()).get("pad_token_id", 0)
    for file in sorted(model.iterdir()):
        if not file.is_file():
            continue
        if file.name in _CONFIGS:
            config = json.loads(file.read_text())
            config["eos_token_id"] = padding
            (folder / file.name).write_text(json.dumps(config, indent=2))
        else:
            (folder / file.name).symlink_to(file.resolve())
    return folder
