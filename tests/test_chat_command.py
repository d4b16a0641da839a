"""``llama4 chat`` and its sessions, with the small checkpoint of transformers."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llama4_core as l4
from llama4_core.chat.messages import Message
from llama4_core.chat.session import INTERRUPTED, Replying, Session
from llama4_core.cli import main
from llama4_core.errors import ChatError
from llama4_core.generation.result import Piece

TINY = str(Path(__file__).parent / "data" / "tiny-hf")
DRAWN = ["--temperature", "0.9", "--seed", "5", "--max-tokens", "12"]
TOOL = {
    "type": "function",
    "function": {"name": "clock", "description": "the time", "parameters": {"type": "object"}},
}


def talk(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lines: str,
    *options: str,
) -> list[dict[str, Any]]:
    """Runs the command with some input; the replies."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    assert main(["chat", TINY, "--json", *options]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_resumed_session_says_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Three turns at once, or in two runs: the same words, drawn at random."""
    whole, parts = tmp_path / "whole.json", tmp_path / "parts.json"
    system = ["--system", "Be brief."]
    once = talk(
        monkeypatch, capsys, "hello\nwho?\nwhy?\n", *DRAWN, *system, "--session", str(whole)
    )
    first = talk(monkeypatch, capsys, "hello\n", *DRAWN, *system, "--session", str(parts))
    rest = talk(monkeypatch, capsys, "who?\nwhy?\n", "--session", str(parts))
    assert [reply["content"] for reply in first + rest] == [reply["content"] for reply in once]
    assert len({reply["content"] for reply in once}) == 3
    assert json.loads(whole.read_text()) == json.loads(parts.read_text())
    roles = [message.role for message in Session.read(whole).messages]
    assert roles == ["system"] + ["user", "assistant"] * 3
    assert all(reply["tokens"] <= 12 and "tokens_per_second" in reply for reply in once)


def test_a_mistyped_model_leaves_no_session_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The same command with the right name works."""
    options = ["--system", "Be brief.", "--session", str(tmp_path / "s.json")]
    assert main(["chat", f"{TINY}-mistyped", *options]) == 2
    assert not list(tmp_path.iterdir())
    capsys.readouterr()
    assert len(talk(monkeypatch, capsys, "hello\n", "--max-tokens", "3", *options)) == 1


def test_an_interrupted_reply_is_kept(tmp_path: Path) -> None:
    """Leaving after five tokens keeps exactly what was said, in the file too."""
    model = l4.load(TINY)
    session = Session([Message("user", "hello")], settings={"max_tokens": 30}, file=tmp_path / "s")
    replying = session.reply(model)
    said = ""
    for index, piece in enumerate(replying):
        said += piece.text
        if index == 4:
            break
    reply = replying.finish()
    assert reply is not None
    assert reply.generation.stop_reason == INTERRUPTED
    assert reply.message.text == said
    assert Session.read(tmp_path / "s").messages[-1] == reply.message
    assert replying.finish() is reply  # once only
    assert len(session.messages) == 2


def test_an_interrupt_ends_the_reply_and_not_the_conversation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Ctrl-C in the middle of the first reply; the second is said whole."""
    said = []
    pieces = Replying.__iter__

    def interrupted(self: Replying) -> Iterator[Piece]:
        for piece in pieces(self):
            said.append(piece.text)
            yield piece
            if len(said) == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(Replying, "__iter__", interrupted)
    file = tmp_path / "s.json"
    first, second = talk(
        monkeypatch, capsys, "hello\nand?\n", "--max-tokens", "6", "--session", str(file)
    )
    assert first["stop_reason"] == INTERRUPTED
    assert first["content"] == "".join(said[:3])
    assert first["tokens"] == 3
    assert second["stop_reason"] != INTERRUPTED
    assert [message.role for message in Session.read(file).messages] == ["user", "assistant"] * 2


def test_results_of_tools_have_their_own_role(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """``/result`` is rendered as a tool's answer; the tools stay with the session."""
    tools, file = tmp_path / "tools.json", tmp_path / "s.json"
    tools.write_text(json.dumps([TOOL]))
    options = ["--tools", str(tools), "--session", str(file), "--max-tokens", "3"]
    talk(monkeypatch, capsys, "what time?\n/result 12:00\n", *options)
    session = Session.read(file)
    assert [message.role for message in session.messages][:3] == ["user", "assistant", "ipython"]
    assert list(session.tools) == [TOOL]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not json", "cannot be read"),
        ("[]", "is not a session"),
        ('{"format": "llama4-session", "version": 2}', "version 2; expected 1"),
        ('{"format": "llama4-session", "version": 1, "extra": 1}', "unknown key 'extra'"),
        (
            '{"format": "llama4-session", "version": 1, "settings": {"topk": 1}}',
            "unknown session setting 'topk'",
        ),
        (
            '{"format": "llama4-session", "version": 1, "settings": {"seed": "x"}}',
            "setting seed is 'x'; expected a number",
        ),
        ('{"format": "llama4-session", "version": 1, "settings": "x"}', "length"),
        ("[" * 100_000, "cannot be read"),
        (
            '{"format": "llama4-session", "version": 1, "messages": [{"role": "king"}]}',
            "king",
        ),
    ],
)
def test_bad_session_files_are_named(
    content: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the file and the trouble; the file stays as it was."""
    file = tmp_path / "s.json"
    file.write_text(content)
    assert main(["chat", TINY, "--session", str(file)]) == 2
    error = capsys.readouterr().err
    assert str(file) in error
    assert words in error
    assert file.read_text() == content


def test_a_new_sessions_options_are_refused_for_an_old_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A system message cannot be slipped under a conversation that has begun."""
    file = tmp_path / "s.json"
    Session(file=file).write()
    assert main(["chat", TINY, "--session", str(file), "--system", "x"]) == 2
    assert "--system belongs to a new session" in capsys.readouterr().err


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """The folder is gone: an error that names the file."""
    session = Session(file=tmp_path / "gone" / "s.json")
    with pytest.raises(ChatError, match=r"gone.s\.json.*cannot be written"):
        session.add(Message("user", "hi"))


def test_text_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    """Half a surrogate pair, as a terminal with another encoding gives it."""
    session = Session(file=tmp_path / "s.json")
    session.write()
    before = (tmp_path / "s.json").read_text()
    with pytest.raises(ChatError, match=r"s\.json.*cannot be written"):
        session.add(Message("user", "\udcff"))
    assert (tmp_path / "s.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]
