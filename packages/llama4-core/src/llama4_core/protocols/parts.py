"""How a module under assembly asks for its own parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from llama4_core.plugins.regimes import RegimeTable


class Parts(Protocol):
    """The assembler, seen from one path of the model (for example ``layers.3.feed_forward``).

    Attributes:
        path: where in the model this is.
        dtype, device: what the model will run in and on, as strings.
    """

    path: str
    dtype: str
    device: str

    def child(self, name: str) -> Parts:
        """The same assembler at ``path + "." + name``."""

    def build(
        self, socket: str, slot: str, name: str, *args: Any, problem: Any = None, **kwargs: Any
    ) -> Any:
        """Builds the part of slot ``path.slot``: the component ``name``, unless overridden.

        ``problem`` is what the component's ``supports`` is asked about, in sockets that have one.
        An override may put another name or an object in its place: a class or function is called
        with the same arguments, anything else is taken as it is. The choice goes into the report.
        """

    def factory(
        self, socket: str, slot: str, name: str, *, problem: Any = None
    ) -> Callable[..., Any]:
        """What :meth:`build` would call, for parts that are built later or many times (caches)."""

    def regimes(self, socket: str, slot: str, name: str, problem: Any) -> RegimeTable:
        """Freezes, for slot ``path.slot``, who runs in which regime of ``problem``.

        ``name`` is a component or "auto"; each row of the table holds a built object.
        """
