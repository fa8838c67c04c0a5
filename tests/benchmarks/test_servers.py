"""Real processes: they start, answer, and are gone afterwards."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.endless import endless
from benchmarks.servers import Peer, PeerFlags, Platform, ProcessServer, ServerFailed
from benchmarks.wire import ChatClient
from configs.reader import PROJECT_ROOT
from configs.weights import check_folder

DEMO = PROJECT_ROOT / "models" / "weights" / "gemma3-demo"


class Scripted(ProcessServer):
    name = "scripted"
    model = "m"
    start_timeout_s = 1.5

    def __init__(self, program: str) -> None:
        super().__init__()
        self.program = program
        self.pid = 0

    def command(self, port: int) -> list[str]:
        return [sys.executable, "-c", self.program]


def test_a_server_that_ends_while_starting_is_named_with_its_exit_code() -> None:
    with pytest.raises(ServerFailed, match="scripted ended with exit code 3"):
        asyncio.run(Scripted("raise SystemExit(3)").start())


def test_a_server_that_never_answers_is_given_up_and_ended(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = (
        "import os, pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(pids)!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(ServerFailed, match="no answer within"):
        asyncio.run(Scripted(program).start())
    started = [int(pid) for pid in pids.read_text().split()]
    give_up_at = time.monotonic() + 5
    while any(_runs(pid) for pid in started) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in started)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_endless_folder_is_the_same_model_without_an_end(tmp_path: Path) -> None:
    folder = endless(DEMO, tmp_path / "model")
    check_folder(folder)
    assert (folder / "model.safetensors").resolve() == (DEMO / "model.safetensors").resolve()
    before = json.loads((DEMO / "config.json").read_text())
    after = json.loads((folder / "config.json").read_text())
    assert after.pop("eos_token_id") == before["pad_token_id"]
    assert before.pop("eos_token_id") != before["pad_token_id"]
    assert after == before


def test_the_old_end_is_text_and_prompts_have_the_same_tokens(tmp_path: Path) -> None:
    """In a process of its own, which may import MLX without the BLAS that other tests load."""
    program = """
import sys
from transformers import AutoTokenizer
from models.text import ChatTokenizer
before, after = (AutoTokenizer.from_pretrained(folder) for folder in sys.argv[1:])
talk = [{"role": "user", "content": "Oi"}, {"role": "assistant", "content": "x"},
        {"role": "user", "content": "?"}]
template = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
assert before.apply_chat_template(talk, **template) == after.apply_chat_template(talk, **template)
end = before.convert_tokens_to_ids("<end_of_turn>")
assert ChatTokenizer(before, [end]).token_bytes(end) == b""
assert ChatTokenizer(after, [after.eos_token_id]).token_bytes(end) == b"[end_of_turn]"
assert after.decode([end], skip_special_tokens=True) == "[end_of_turn]"
assert after.eos_token_id == after.pad_token_id
"""
    folder = endless(DEMO, tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-c", program, str(DEMO), str(folder)],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_mlx_lm_server_answers_an_endless_model_to_the_full_length(tmp_path: Path) -> None:
    """The real peer on the real weights: flags are accepted, usage comes, nothing stays behind."""

    async def scenario() -> tuple[str, int]:
        peer = Peer(endless(DEMO, tmp_path / "model"), PeerFlags(threads=1))
        target = await peer.start()
        try:
            client = ChatClient(target, peer.model, timeout_s=60)
            request = client.encode([{"role": "user", "content": "Oi"}], max_tokens=24)
            outcome = await client.chat(request, time.perf_counter())
            assert outcome.is_complete
            return outcome.finish_reason, outcome.completion_tokens
        finally:
            await peer.stop()

    assert asyncio.run(scenario()) == ("length", 24)
    mine = [p.cmdline() for p in psutil.Process().children(recursive=True) if p.is_running()]
    assert not any("benchmarks.peer_launcher" in line for line in mine)


def test_our_platform_is_started_by_its_own_command_in_a_home_of_its_own(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "site.yaml", "gemma3-demo", tmp_path / "home")
    command = platform.command(9000)
    assert command[1:4] == ["-m", "serve_app.cli", "up"]
    assert command[-1] == str(tmp_path / "site.yaml")
    environment = platform.environment(9000)
    assert (environment["PORT"], environment["MEDREC_HOME"]) == ("9000", str(tmp_path / "home"))
