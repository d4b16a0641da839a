"""Pictures and films on the command line: options that name them, limits, drawing on them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama4_core.errors import ChatError, ModalityError

if TYPE_CHECKING:
    from llama4_core.chat.messages import Input


def add_picture_options(parser: argparse.ArgumentParser, goes_with: str) -> None:
    """Adds ``--image``, ``--video`` and what belongs to them.

    Args:
        parser: of the command.
        goes_with: what pictures are put in front of, for the help text.
    """
    for kind in ("image", "video"):
        what = "a picture" if kind == "image" else "a film"
        parser.add_argument(
            f"--{kind}",
            action="append",
            dest="pictures",
            default=[],
            type=partial(_of_kind, kind),
            metavar="FILE",
            help=f"{what} in front of {goes_with}; repeatable, the order is kept",
        )
    parser.add_argument("--frames", type=int, metavar="N", help="frames to look at of each film")
    parser.add_argument("--fps", type=float, metavar="X", help="frames per second of film")
    parser.add_argument(
        "--max-images", type=int, metavar="N", help="most pictures of a prompt, if not 16"
    )
    parser.add_argument(
        "--draw",
        type=Path,
        metavar="OUT.png",
        help="draw the boxes that a reply names on the last picture",
    )


def _of_kind(kind: str, text: str) -> tuple[str, str]:
    return kind, text


def pictures_of(arguments: argparse.Namespace) -> list[Input]:
    """The ``--image`` and ``--video`` options as parts, in order.

    Raises:
        ModalityError: a file is not there.
        ChatError: ``--frames`` or ``--fps`` cannot be used.
    """
    return [picture(kind, text, arguments) for kind, text in arguments.pictures]


def picture(kind: str, text: str, arguments: argparse.Namespace) -> Input:
    """One picture or film by its path or URL; ``--frames`` and ``--fps`` hold for films.

    Paths become absolute, so that a session that stores them can be resumed anywhere.

    Raises:
        ModalityError: there is no such file.
        ChatError: ``--frames`` or ``--fps`` cannot be used.
    """
    from llama4_core.chat.messages import Image, Video

    source = text
    if not text.startswith("data:") and "://" not in text:
        path = Path(text).expanduser()
        if not text or not path.exists():
            raise ModalityError(
                f"{text or 'an empty name'}: there is no such {kind}; expected the path of a file"
            )
        source = str(path.resolve())
    if kind == "image":
        return Image(source)
    return Video(source, arguments.frames, arguments.fps)


def check_options(arguments: argparse.Namespace, *, later: bool = False) -> None:
    """Says before a large model is loaded what cannot work.

    Args:
        arguments: with the options of :func:`add_picture_options`.
        later: pictures may still come, so that options without any are no mistake.

    Raises:
        ChatError: options of films without a film.
        ModalityError: nothing to draw on, or nowhere to draw to.
    """
    from llama4_core.chat.messages import Video

    Video(None, arguments.frames, arguments.fps)
    kinds = {kind for kind, _ in arguments.pictures}
    if not later:
        for name in ("frames", "fps"):
            if getattr(arguments, name) is not None and "video" not in kinds:
                raise ChatError(f"--{name} is for films; expected --video FILE with it")
        if arguments.draw is not None and "image" not in kinds:
            raise ModalityError("--draw has no picture to draw on; expected --image FILE with it")
    if arguments.max_images is not None and arguments.max_images < 0:
        raise ModalityError(f"--max-images is {arguments.max_images}; expected 0 or more")
    if arguments.draw is not None and not arguments.draw.absolute().parent.is_dir():
        raise ModalityError(
            f"--draw {arguments.draw}: there is no folder {arguments.draw.parent}; make it, or "
            "name another file"
        )


def limit_images(model: Any, most: int | None) -> None:
    """Lets the model's modalities read ``most`` images in one prompt; None leaves what they allow.

    Raises:
        ModalityError: the model reads no images, or sets no limit that could be moved.
    """
    if most is None:
        return
    from llama4_core.chat.messages import Image
    from llama4_core.generation.inputs import modality_of

    modality: Any = modality_of(model, Image())
    limits: Any = getattr(modality, "limits", None)
    if not hasattr(limits, "images"):
        raise ModalityError(
            f"--max-images moves no limit: {type(modality).__name__} has none; leave it out"
        )
    modality.limits = replace(limits, images=most)


def draw(model: Any, parts: Sequence[Input], text: str, path: Path | None) -> dict[str, Any]:
    """Draws what ``text`` says about places on the last picture, if it was asked for.

    Args:
        model: that saw the pictures.
        parts: everything that it saw.
        text: what it said.
        path: of the new picture, or None.

    Returns:
        ``{"drawn": path, "boxes": [...]}``; nothing without a path or a picture.

    Raises:
        ModalityError: the picture cannot be drawn.
    """
    from llama4_core.chat.messages import Image
    from llama4_core.generation.inputs import modality_of

    images = [part for part in parts if isinstance(part, Image)]
    if path is None or not images:
        return {}
    boxes = modality_of(model, images[-1]).annotate(images[-1], text, path)
    return {"drawn": str(path), "boxes": boxes}


def say_drawn(drawn: dict[str, Any]) -> None:
    """Says on stderr how many boxes were drawn, and where."""
    if drawn:
        count = len(drawn["boxes"])
        boxes = "1 box" if count == 1 else f"{count} boxes"
        print(f"[{boxes} drawn in {drawn['drawn']}]", file=sys.stderr)
