"""torch.distributed.checkpoint's planners with JSON in the place of pickle."""

from __future__ import annotations

import io
import json
from typing import Any

from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.planner import ReadItem, WriteItem, WriteItemType

from llama4_core.errors import CheckpointError

# Both walk through dictionaries and rebuild them: empty ones and keys that are numbers get lost.
_AS_IT_IS = {"flatten_state_dict": False, "flatten_sharded_tensors": False}


def json_bytes(value: Any, name: str) -> bytes:
    """A value as JSON that gives it back: strict numbers, keys that are strings.

    Tuples come back as lists.

    Raises:
        CheckpointError: JSON cannot hold it; names the value.
    """
    try:
        _check_keys(value)
        return json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{name} cannot be stored as JSON ({error}); expected tensors, or strings, finite "
            "numbers, true, false, None, and lists and string-keyed dictionaries of these"
        ) from error


def _check_keys(value: Any) -> None:
    if isinstance(value, dict):
        for key, one in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r:.40} is no string")
            _check_keys(one)
    elif isinstance(value, list | tuple):
        for one in value:
            _check_keys(one)


class JsonSavePlanner(DefaultSavePlanner):
    """Plans a flat dictionary: tensors of any sharding, and JSON values."""

    def __init__(self) -> None:
        super().__init__(**_AS_IT_IS)

    def transform_object(self, write_item: WriteItem, object: Any) -> Any:  # noqa: A002 - torch's name
        """Tensors as they are, everything else as JSON."""
        if write_item.type == WriteItemType.BYTE_IO:
            return io.BytesIO(json_bytes(object, write_item.index.fqn))
        return object


class JsonLoadPlanner(DefaultLoadPlanner):
    """Fills the tensors of a flat dictionary in place, whatever their sharding; replaces values."""

    def __init__(self) -> None:
        super().__init__(**_AS_IT_IS)

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Puts a value into the dictionary that is loaded into."""
        self.original_state_dict[read_item.dest_index.fqn] = json.loads(value.getvalue())
