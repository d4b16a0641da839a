"""Running a template that came with a checkpoint: untrusted text, so without files or limits lost.

jinja2's immutable sandbox keeps a template from attributes of Python objects and from changing what
it is given; there is no loader, so nothing can be included. On top of it, what can cost much memory
or time in one step is refused, output is bounded, and so is the time.
"""

from __future__ import annotations

import datetime
import json
import time
from typing import Any

from llama4_core.errors import ChatError

try:
    import jinja2
    import jinja2.exceptions
    import jinja2.ext
    import jinja2.nodes
    import jinja2.parser
    import jinja2.sandbox
except ImportError as error:
    raise ChatError(
        "chat templates of checkpoints need jinja2, which is not installed; "
        "pip install 'llama4-core[templates]', or use the chat format 'llama4'"
    ) from error

MAX_OUTPUT = 1 << 24
"""Longest rendered text, in characters."""

MAX_STEPS = 1_000_000
"""Most numbers from ``range`` and operations that pass through the sandbox, in one rendering."""

MAX_SECONDS = 5.0
"""CPU seconds of one rendering."""

_REPEATED = 10_000
# Each can make a string of any length from two small arguments.
_PADDING = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"})


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The sandbox with a budget."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        for name in ("center", "format", "indent", "xmlattr", "urlize", "pprint", "random"):
            self.filters.pop(name)
        self.filters["tojson"] = _tojson
        for name in ("cycler", "joiner", "lipsum"):
            self.globals.pop(name)
        self.globals["range"] = self._range
        self.globals["raise_exception"] = _raise
        self.globals["strftime_now"] = _now
        self.begin()

    def begin(self) -> None:
        """Starts a rendering."""
        self._steps = 0
        self._deadline = time.thread_time() + MAX_SECONDS

    def step(self, count: int = 1) -> None:
        """Counts work; refuses to go on beyond the budget."""
        self._steps += count
        if self._steps > MAX_STEPS or time.thread_time() > self._deadline:
            raise jinja2.exceptions.SecurityError(
                f"it takes more than {MAX_STEPS} steps or {MAX_SECONDS} seconds"
            )

    def _range(self, *bounds: int) -> range:
        found = range(*bounds)
        self.step(len(found))
        return found

    def getitem(self, obj: Any, argument: Any) -> Any:
        self._look(obj, argument)
        return super().getitem(obj, argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        self._look(obj, attribute)
        return super().getattr(obj, attribute)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        __self.step()
        return super().call(__context, __obj, *args, **kwargs)

    def _look(self, obj: Any, name: Any) -> None:
        """Counts an access; refuses methods of strings that pad."""
        self.step()
        if isinstance(obj, str) and isinstance(name, str) and name in _PADDING:
            raise jinja2.exceptions.SecurityError(f"the method {name} of strings is not available")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.step()
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise jinja2.exceptions.SecurityError(f"the operator {operator} is not available")
        if operator == "*" and not all(isinstance(side, int | float) for side in (left, right)):
            sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
            if len(sized) * times > _REPEATED:
                raise jinja2.exceptions.SecurityError("a repetition is too long")
        elif operator == "*" and max(abs(left), abs(right)) > 1e18:
            raise jinja2.exceptions.SecurityError("a number is too large")
        return super().call_binop(context, operator, left, right)


class _Generation(jinja2.ext.Extension):
    """``{% generation %}``, by which templates mark the assistant's text for training: its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def compile_template(source: str) -> Any:
    """A template in a sandbox of its own.

    Raises:
        ChatError: it is no jinja template.
    """
    try:
        return _Environment().from_string(source)
    except (jinja2.TemplateError, RecursionError, SyntaxError, MemoryError) as error:
        raise ChatError(f"the chat template is no valid jinja2 template: {error}") from error


def run_template(template: Any, values: dict[str, Any]) -> str:
    """Renders, within the limits on output and time.

    Raises:
        ChatError: the template refuses its input, fails or goes beyond a limit.
    """
    environment: _Environment = template.environment
    environment.begin()
    pieces, length = [], 0
    try:
        for piece in template.generate(**values):
            environment.step()
            length += len(piece)
            if length > MAX_OUTPUT:
                raise jinja2.exceptions.SecurityError(f"it writes over {MAX_OUTPUT} characters")
            pieces.append(piece)
    except Exception as error:  # foreign code: whatever it raises
        raise ChatError(
            f"the chat template cannot be applied: {type(error).__name__}: {error}; use the chat "
            "format 'llama4', or messages that the template takes"
        ) from error
    return "".join(pieces)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without HTML's escapes, as transformers gives it to templates."""
    if indent is not None and not 0 <= indent <= 16:
        raise jinja2.exceptions.SecurityError(f"indent is {indent}; expected 0 to 16")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)
