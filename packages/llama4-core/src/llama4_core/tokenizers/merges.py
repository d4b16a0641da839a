"""Merges of byte pairs, derived from ranks."""

from __future__ import annotations

from collections.abc import Sequence

_NEVER = 1 << 62


def merges(ranks: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """The one pair that each token is merged from, in the order of the tokens' ranks.

    A file of ranks says only that the two neighbours whose joint token has the lowest rank are
    merged first, the leftmost among equals. While nothing crosses a token's borders, the merges
    within it do not depend on what is around it; so its last merge joins the same pair wherever it
    happens, and running the rule on the token's own bytes finds that pair. A token whose bytes the
    rule does not join into one has no merge: it is found only when a whole piece of the split text
    equals it.

    Args:
        ranks: tokens by rank, all 256 single bytes among them.
    """
    numbers = {token: rank for rank, token in enumerate(ranks)}
    single = [bytes((byte,)) for byte in range(256)]
    found = []
    for token in ranks:
        if len(token) == 2:
            found.append((token[:1], token[1:]))
        elif len(token) > 2:
            pair = _last(token, numbers, single)
            if pair is not None:
                found.append(pair)
    return found


def _last(
    token: bytes, numbers: dict[bytes, int], single: Sequence[bytes]
) -> tuple[bytes, bytes] | None:
    """The last two parts that the rule leaves of ``token``; None when it leaves more."""
    rank = numbers.get
    parts = [single[byte] for byte in token]
    # costs[i]: the rank of parts i and i + 1 together.
    costs = [rank(token[i : i + 2], _NEVER) for i in range(len(token) - 1)]
    while len(parts) > 2:
        lowest = min(costs)
        if lowest == _NEVER:
            return None
        at = costs.index(lowest)
        joined = parts[at] = parts[at] + parts[at + 1]
        del parts[at + 1], costs[at]
        if at:
            costs[at - 1] = rank(parts[at - 1] + joined, _NEVER)
        if at < len(costs):
            costs[at] = rank(joined + parts[at + 1], _NEVER)
    return parts[0], parts[1]
