"""Running a template that came with a checkpoint: untrusted text, so without files or limits lost.

jinja2's immutable sandbox keeps a template from attributes of Python objects and from changing what
it is given; there is no loader, so nothing can be included. On top of it, what can cost much memory
or time in one step is refused or measured first, every round of a loop is counted, texts and output
are bounded, and so is the time.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from llama4_core.errors import ChatError

try:
    import jinja2
    import jinja2.exceptions
    import jinja2.ext
    import jinja2.filters
    import jinja2.nodes
    import jinja2.parser
    import jinja2.sandbox
    import jinja2.utils
    import jinja2.visitor
except ImportError as error:
    raise ChatError(
        "chat templates of checkpoints need jinja2, which is not installed; "
        "pip install 'llama4-core[templates]', or use the chat format 'llama4'"
    ) from error

MAX_OUTPUT = 1 << 24
"""Longest text, rendered or on the way there, in characters."""

MAX_ITEMS = 1 << 20
"""Longest list that two lists make."""

MAX_STEPS = 1_000_000
"""Most rounds of loops, numbers from ``range``, items that are written, and operations that pass
through the sandbox, in one rendering."""

MAX_SECONDS = 5.0
"""CPU seconds of one rendering."""

_REPEATED = 10_000
# Each can make a string or bytes of any length from small arguments; bytes are of no use anyway.
_PADDING = frozenset(
    {
        "center",
        "encode",
        "expandtabs",
        "format",
        "format_map",
        "ljust",
        "rjust",
        "to_bytes",
        "translate",
        "zfill",
    }
)
# Filters that do the same, or that lead to other objects, or to what is not the same every time.
_REMOVED = (
    "batch",
    "center",
    "format",
    "indent",
    "pprint",
    "random",
    "slice",
    "sum",
    "urlize",
    "wordwrap",
    "xmlattr",
)
_LISTS = (list, tuple, set, frozenset, KeysView, ValuesView)
# What compares values with each other or with an argument.
_COMPARING_FILTERS = frozenset(
    {"dictsort", "groupby", "map", "max", "min", "reject", "rejectattr", "select", "selectattr"}
    | {"sort", "unique"}
)
_COMPARING_TESTS = frozenset(
    {"eq", "equalto", "ge", "greaterthan", "gt", "in", "le", "lessthan", "lt", "ne"}
    | {"==", "!=", "<", "<=", ">", ">="}
)


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The sandbox with a budget."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, jinja2.ext.loopcontrols],
            finalize=self._text,
        )
        for name in _REMOVED:
            self.filters.pop(name)
        self.filters["counted"] = self._counted
        self.filters["join"] = self._join
        self.filters["measured"] = self._measured
        self.filters["replace"] = self._replace
        self.filters["string"] = self._text
        self.filters["tojson"] = self._tojson
        # What blocks, macros and the like are put together with.
        self.concat = self._concat  # type: ignore[method-assign]
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
        before = self._steps
        self._steps += count
        # The clock costs more than a step: it is looked at once in sixteen.
        late = before // 16 != self._steps // 16 and time.thread_time() > self._deadline
        if late or self._steps > MAX_STEPS:
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
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", None)
        if isinstance(owner, str) and name == "join" and len(args) == 1:
            return __self._join(args[0], owner)
        if isinstance(owner, list | tuple) and name in ("count", "index"):
            __self._measure([owner, *args])
        if isinstance(owner, str) and name == "replace":
            # In loops the compiler adds arguments of its own.
            given = {key: value for key, value in kwargs.items() if key == "count"}
            return __self._replace(owner, *args, **given)
        return super().call(__context, __obj, *args, **kwargs)

    def _look(self, obj: Any, name: Any) -> None:
        """Counts an access; refuses methods of strings and numbers that pad."""
        self.step()
        if isinstance(obj, str | int) and isinstance(name, str) and name in _PADDING:
            raise jinja2.exceptions.SecurityError(f"the method {name} is not available")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.step()
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise jinja2.exceptions.SecurityError(f"the operator {operator} is not available")
        if operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
            _check(len(left) + len(right), MAX_OUTPUT if isinstance(left, str) else MAX_ITEMS)
        if operator == "*" and not all(isinstance(side, int | float) for side in (left, right)):
            sized, times = (left, right) if hasattr(left, "__len__") else (right, left)
            if len(sized) * times > _REPEATED:
                raise jinja2.exceptions.SecurityError("a repetition is too long")
        elif operator == "*" and max(abs(left), abs(right)) > 1e18:
            raise jinja2.exceptions.SecurityError("a number is too large")
        return super().call_binop(context, operator, left, right)

    def _counted(self, values: Any) -> Iterator[Any]:
        """What a loop runs over."""
        for value in values:
            self.step()
            yield value

    def _measured(self, value: Any) -> Any:
        """What is compared: two short lists of lists may take as long as long ones."""
        found = list(value) if isinstance(value, Iterator) else value
        self._measure(found)
        return found

    def _text(self, value: Any) -> str:
        """The value as text, measured first: a short list of lists may be written very long."""
        if not isinstance(value, str):
            self._measure(value)
        return str(value)

    def _measure(self, value: Any) -> None:
        waiting, length = [value], 0
        while waiting:
            one = waiting.pop()
            if isinstance(one, str):
                length += len(one)
                _check(length, MAX_OUTPUT)
            elif isinstance(one, _LISTS):
                self.step(len(one))
                waiting += one
            elif isinstance(one, jinja2.utils.Namespace):
                raise jinja2.exceptions.SecurityError("a namespace is no value")
            elif isinstance(one, (Mapping, ItemsView)):
                items = one.items() if isinstance(one, Mapping) else one
                self.step(len(items))
                waiting += [part for pair in items for part in pair]

    def _concat(self, pieces: Iterable[str]) -> str:
        found = list(pieces)
        _check(sum(map(len, found)), MAX_OUTPUT)
        return "".join(found)

    def _join(self, value: Any, d: Any = "", attribute: str | int | None = None) -> str:
        """jinja2's filter, and the method of strings."""
        items = list(value)
        if attribute is not None:
            items = list(map(jinja2.filters.make_attrgetter(self, attribute), items))
        texts, between = [self._text(item) for item in items], self._text(d)
        _check(sum(map(len, texts)) + len(between) * len(texts), MAX_OUTPUT)
        return between.join(texts)

    def _replace(self, text: Any, old: Any, new: Any, count: int | None = None) -> str:
        """jinja2's filter, and the method of strings."""
        whole, gone, come = self._text(text), self._text(old), self._text(new)
        most = -1 if count is None else count
        times = whole.count(gone)
        times = times if most < 0 else min(times, most)
        _check(len(whole) + times * max(0, len(come) - len(gone)), MAX_OUTPUT)
        return whole.replace(gone, come, most)

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """JSON without HTML's escapes, as transformers gives it to templates."""
        if indent is not None and not 0 <= indent <= 16:
            raise jinja2.exceptions.SecurityError(f"indent is {indent}; expected 0 to 16")
        self._measure(value)
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )


class _Bounds(jinja2.visitor.NodeTransformer):
    """Rewrites what passes through no method of the environment: loops, ``~``, comparisons."""

    def visit_For(self, node: jinja2.nodes.For) -> jinja2.nodes.Node:  # noqa: N802
        self.generic_visit(node)
        values: Any = node.iter
        node.iter = _filtered(values, "counted")
        return node

    def visit_Concat(self, node: jinja2.nodes.Concat) -> jinja2.nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(jinja2.nodes.List(node.nodes, lineno=node.lineno), "join")

    def visit_Compare(self, node: jinja2.nodes.Compare) -> jinja2.nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _filtered(node.expr, "measured")
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, "measured")
        return node

    def visit_Filter(self, node: jinja2.nodes.Filter) -> jinja2.nodes.Node:  # noqa: N802
        return self._compared(node, _COMPARING_FILTERS)

    def visit_Test(self, node: jinja2.nodes.Test) -> jinja2.nodes.Node:  # noqa: N802
        return self._compared(node, _COMPARING_TESTS)

    def _compared(
        self, node: jinja2.nodes.Filter | jinja2.nodes.Test, names: frozenset[str]
    ) -> jinja2.nodes.Node:
        self.generic_visit(node)
        if node.name in names:
            # The value is missing in blocks of {% filter %}, which hold text.
            values: Any = node.node
            node.node = None if values is None else _filtered(values, "measured")
            node.args = [_filtered(argument, "measured") for argument in node.args]
        return node


def _filtered(node: jinja2.nodes.Expr, name: str) -> jinja2.nodes.Filter:
    return jinja2.nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise jinja2.exceptions.SecurityError(f"it makes a text or list of {size}; at most {limit}")


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
        environment = _Environment()
        tree = _Bounds().visit(environment.parse(source))
        tree.set_environment(environment)
        return environment.from_string(tree)
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


def _raise(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)
