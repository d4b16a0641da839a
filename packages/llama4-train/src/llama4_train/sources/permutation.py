"""An order drawn at random without keeping it: any place of it is computed when it is asked for."""

from __future__ import annotations

from hashlib import blake2b

_ROUNDS = 6
# Bits of a half. With two, the 24 orders of four numbers are visibly not as likely as each other
# (chi-square over 4,800 keys: 20 standard deviations too large); with three they are.
_LEAST = 3
_BITS = 64
_MASK = (1 << _BITS) - 1
# The finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
# generators", OOPSLA 2014).
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


class Permutation:
    """The numbers below ``count``, each once, in an order that ``key`` decides.

    A Feistel network of six rounds permutes the numbers of ``2 b`` bits, of which there are 64 or
    at most four times ``count``; who leaves the range is sent through again until it is back. Takes
    constant memory, and some microseconds for each number.

    Args:
        count: of the numbers; at least 1.
        key: equal keys give equal orders.
    """

    def __init__(self, count: int, key: str) -> None:
        self._count = count
        self._half = max(_LEAST, ((count - 1).bit_length() + 1) // 2)
        digest = blake2b(key.encode(), digest_size=8 * _ROUNDS).digest()
        self._keys = [
            int.from_bytes(digest[start : start + 8], "big") for start in range(0, len(digest), 8)
        ]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> int:
        if not 0 <= place < self._count:
            raise IndexError(place)
        half = self._half
        while True:
            left, right = place >> half, place & ((1 << half) - 1)
            for key in self._keys:
                left, right = right, left ^ (_mixed(right ^ key) >> (_BITS - half))
            place = left << half | right
            if place < self._count:
                return place


def _mixed(value: int) -> int:
    """64 bits, each of which depends on all of ``value``."""
    value = (value ^ value >> 30) * _FIRST & _MASK
    value = (value ^ value >> 27) * _SECOND & _MASK
    return value ^ value >> 31
