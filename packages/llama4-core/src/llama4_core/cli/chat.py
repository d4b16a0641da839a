"""``llama4 chat MODEL``: a conversation in the terminal, kept in a file when asked to."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama4_core.cli.loading import add_model_options, load_model
from llama4_core.cli.pictures import (
    add_picture_options,
    check_options,
    draw,
    limit_images,
    picture,
    pictures_of,
    say_drawn,
)
from llama4_core.errors import ChatError, GenerationError, ModalityError

if TYPE_CHECKING:
    from llama4_core.chat.messages import Input
    from llama4_core.chat.session import Replying, Session

RESULT = "/result "
PICTURES = {"/image": "image", "/video": "video"}
END = "/exit"


class Command:
    """Chats."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        add_model_options(parser)
        parser.add_argument(
            "--session",
            type=Path,
            metavar="FILE",
            help="keep the conversation; resume if it exists",
        )
        parser.add_argument("--system", metavar="TEXT", help="the system message of a new session")
        parser.add_argument(
            "--tools", type=Path, metavar="FILE", help="JSON list of tools of a new session"
        )
        parser.add_argument("--max-tokens", type=int, help="most tokens of a reply (default 256)")
        parser.add_argument("--temperature", type=float, help="0 is greedy, the default")
        parser.add_argument("--top-k", type=int, help="keep the k most probable tokens")
        parser.add_argument(
            "--top-p", type=float, help="keep the fewest tokens of this probability"
        )
        parser.add_argument("--min-p", type=float, help="keep tokens of this share of the largest")
        parser.add_argument("--seed", type=int, help="of the random numbers (default 0)")
        parser.add_argument(
            "--format",
            default="llama4",
            help="chat format: llama4 (default), or template for the checkpoint's own",
        )
        add_picture_options(parser, "the first message typed")
        parser.add_argument("--json", action="store_true", help="one JSON object per reply")
        parser.epilog = (
            "Type a message and Enter. '/image FILE' and '/video FILE' show a picture or a film\n"
            "with the next message, '/result TEXT' answers a tool call, '/exit' or the end of the\n"
            "input leaves, Ctrl-C stops a reply and keeps what was said.\n\n"
            "examples:\n"
            '  llama4 chat ./checkpoint --system "Answer briefly." --session talk.json\n'
            "  echo 'What is a whale?' | llama4 chat ./checkpoint --json\n"
            "  echo 'Where is the cat?' | llama4 chat ./checkpoint --image cat.png --draw found.png"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Talks until the input ends."""
        session = _session(arguments)
        check_options(arguments, later=True)
        pictures = pictures_of(arguments)
        model = load_model(arguments)
        limit_images(model, arguments.max_images)
        # Not before: a mistyped model would leave a session behind, and with it the next try,
        # typed right, would be refused because its --system belongs to a new session.
        session.write()
        if session.messages and not arguments.json:
            print(f"[{len(session.messages)} messages so far]", file=sys.stderr)
        talk = _Talk(session, model, arguments, pictures)
        while True:
            line = _read()
            if line is None or line.strip() == END:
                talk.end()
                return 0
            if not line.strip():
                continue
            try:
                talk.hear(line)
            except (ChatError, GenerationError, ModalityError) as error:
                # A person at a terminal can try again; whoever feeds a file has to be told.
                if not sys.stdin.isatty():
                    raise
                print(f"error: {error}", file=sys.stderr)


class _Talk:
    """The lines of one conversation, and the pictures that wait for the next message."""

    def __init__(
        self, session: Session, model: Any, arguments: argparse.Namespace, pictures: list[Input]
    ) -> None:
        self.session = session
        self.model = model
        self.arguments = arguments
        self.pictures = pictures

    def hear(self, line: str) -> None:
        """Takes a line: a picture, a tool's result, or a message; replies to the last two.

        Raises:
            ModalityError: a picture is missing or cannot be read; the message is not kept.
            ChatError, GenerationError: it cannot be replied to; likewise.
        """
        from llama4_core.chat.messages import Message

        first, *rest = line.split(maxsplit=1)
        if first in PICTURES:
            text = rest[0].strip() if rest else ""
            self.pictures.append(picture(PICTURES[first], text, self.arguments))
            if not self.arguments.json:
                print(f"[{text} goes with the next message]", file=sys.stderr)
            return
        if line.startswith(RESULT):
            message = Message("ipython", line[len(RESULT) :])
        else:
            message = Message("user", [*self.pictures, line])
            # Shown once, also when they cannot be read: else no later message could get through.
            self.pictures = []
        replying = self.session.reply(self.model, message, chat_format=self.arguments.format)
        _speak(replying, self.arguments.json, self._draw)

    def end(self) -> None:
        """Says what was left over."""
        if self.pictures:
            print(f"[{len(self.pictures)} pictures were given without a message]", file=sys.stderr)

    def _draw(self, text: str) -> dict[str, Any]:
        parts = [part for message in self.session.messages for part in message.inputs]
        return draw(self.model, parts, text, self.arguments.draw)


def _session(arguments: argparse.Namespace) -> Session:
    from llama4_core.chat.messages import Message
    from llama4_core.chat.session import SETTINGS, Session

    given = {
        name: getattr(arguments, name) for name in SETTINGS if getattr(arguments, name) is not None
    }
    file: Path | None = arguments.session
    if file is not None and file.exists():
        session = Session.read(file)
        for name, value in (("--system", arguments.system), ("--tools", arguments.tools)):
            if value is not None:
                raise ChatError(
                    f"{file} exists already and {name} belongs to a new session; leave it out, or "
                    "name another file"
                )
        session.settings.update(given)
        return session
    session = Session(tools=_tools(arguments.tools), settings=given, file=file)
    if arguments.system is not None:
        session.messages.append(Message("system", arguments.system))
    return session


def _tools(file: Path | None) -> list[dict[str, Any]]:
    if file is None:
        return []
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ChatError(f"{file}: cannot be read as a list of tools: {error}") from error
    if not isinstance(found, list):
        raise ChatError(f"{file}: holds a {type(found).__name__}; expected a JSON list of tools")
    return found


def _read() -> str | None:
    """The next line, or None at the end of the input and for Ctrl-C."""
    try:
        return input("> " if sys.stdin.isatty() else "")
    except (EOFError, KeyboardInterrupt):
        return None


def _speak(replying: Replying, as_json: bool, drawing: Callable[[str], dict[str, Any]]) -> None:
    start = time.perf_counter()
    first, count = start, 0
    try:
        for piece in replying:
            if count == 0:
                first = time.perf_counter()
            count += len(piece.tokens)
            if not as_json:
                print(piece.text, end="", flush=True)
    except KeyboardInterrupt:
        pass  # what was said is kept below
    finally:
        reply = replying.finish()
    elapsed = time.perf_counter() - first
    rate = (count - 1) / elapsed if count > 1 and elapsed > 0 else None
    if reply is None:
        print("[nothing was said]", file=sys.stderr)
        return
    failure: ModalityError | None = None
    drawn: dict[str, Any] = {}
    try:
        drawn = drawing(reply.message.text)
    except ModalityError as error:
        failure = error  # what was said comes first
    if as_json:
        from llama4_core.chat.openai import to_openai

        print(
            json.dumps(
                {
                    **to_openai([reply.message])[0],
                    "stop_reason": reply.generation.stop_reason,
                    "tokens": count,
                    "seconds_to_first_token": first - start,
                    "tokens_per_second": rate,
                    **drawn,
                },
                ensure_ascii=False,
            ),
            flush=True,
        )
    else:
        speed = "" if rate is None else f", {rate:.1f} tokens/s"
        reason = reply.generation.stop_reason.replace("_", " ")
        calls = "".join(
            f"\n[calls {call.name}({dict(call.arguments)})]" for call in reply.message.tool_calls
        )
        print(
            f"{calls}\n[{count} tokens, first after {first - start:.2f} s{speed}; {reason}]",
            file=sys.stderr,
        )
        say_drawn(drawn)
    if failure is not None:
        raise failure
