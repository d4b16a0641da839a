"""The user's own file as a plugin: ``--plugin ./my_router.py``.

The file is run as a module of its own; a component in it names its target as
``f"{__name__}:MyRouter"``. Reports show the file and the SHA-256 of what was run.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from types import ModuleType

from llama4_core.errors import PluginError
from llama4_core.plugins.isolate import PluginSource


def local_source(file: Path) -> PluginSource:
    """Describes ``file`` as a plugin; it runs when the catalogue loads it.

    Raises:
        PluginError: the file cannot be read or is no Python file.
    """
    if file.suffix != ".py":
        raise PluginError(f"--plugin got {str(file)!r}; expected a Python file (.py)")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise PluginError(
            f"--plugin got {str(file)!r}, which cannot be read: {error.strerror}"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    return PluginSource(
        name=file.stem,
        distribution=f"local:{file.name}",
        version=f"sha256:{digest}",
        load=lambda: _run(file.resolve(), content, digest),
        origin=f"file {file}",
        local=True,
    )


def _run(file: Path, content: bytes, digest: str) -> ModuleType:
    """Runs exactly the bytes that were hashed; the same content at the same path runs once."""
    place = hashlib.sha256(str(file).encode()).hexdigest()[:8]
    name = f"llama4_local_{re.sub(r'[^0-9A-Za-z_]', '_', file.stem)}_{place}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # before it runs: dataclasses look their module up
    try:
        exec(compile(content, str(file), "exec"), module.__dict__)  # noqa: S102 - the user's own
    except BaseException:
        del sys.modules[name]
        raise
    return module
