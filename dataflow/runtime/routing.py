"""Predicts where Bytewax routes a key: to which worker, and to which file of a recovery store.

Checked with Bytewax `CHECKED_WITH`.
"""

from __future__ import annotations

__all__ = ["Routes", "file_of", "worker_of"]

MASK = (1 << 64) - 1


class Routes(dict[str, int]):
    """The worker of each key, kept once it is computed.

    >>> routes = Routes(4)
    >>> routes["i-1"], routes["i-2"]
    (0, 3)
    """

    def __init__(self, workers: int) -> None:
        """Start empty, for a flow of `workers` workers."""
        super().__init__()
        self._workers = workers

    def __missing__(self, key: str) -> int:
        worker = self[key] = worker_of(key, self._workers)
        return worker


def worker_of(key: str, workers: int) -> int:
    """Return the number, from 0, of the worker to which Bytewax routes a key.

    Bytewax hashes a key as Rust's standard library hashes a string by default: its UTF-8 bytes and
    a byte 255, by SipHash-1-3 (Aumasson and Bernstein, https://eprint.iacr.org/2012/351) with the
    key 0.

    >>> [worker_of("i-1", workers) for workers in (1, 2, 3, 4)]
    [0, 0, 2, 0]
    """
    return _siphash13(key.encode() + b"\xff") % workers


def _siphash13(data: bytes) -> int:
    a, b = 0x736F6D6570736575, 0x646F72616E646F6D
    c, d = 0x6C7967656E657261, 0x7465646279746573
    whole = len(data) & ~7
    last = (len(data) & 255) << 56 | int.from_bytes(data[whole:], "little")
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, whole, 8)]
    for word in (*words, last):
        a, b, c, d = _round(a, b, c, d ^ word)
        a ^= word
    c ^= 255
    for _ in range(3):
        a, b, c, d = _round(a, b, c, d)
    return a ^ b ^ c ^ d


def _round(a: int, b: int, c: int, d: int) -> tuple[int, int, int, int]:
    a = a + b & MASK
    b = (b << 13 & MASK | b >> 51) ^ a
    a = a << 32 & MASK | a >> 32
    c = c + d & MASK
    d = (d << 16 & MASK | d >> 48) ^ c
    a = a + d & MASK
    d = (d << 21 & MASK | d >> 43) ^ a
    c = c + b & MASK
    b = (b << 17 & MASK | b >> 47) ^ c
    c = c << 32 & MASK | c >> 32
    return a, b, c, d


def file_of(step_id: str, key: str, files: int) -> int:
    """Return the number, from 0, of the file of a recovery store that holds a state.

    `step_id` is the full one, with the name of the flow. Bytewax hashes it and the key by SeaHash
    (https://docs.rs/seahash), each as its UTF-8 bytes and a byte 255.

    >>> [file_of("ec2_anomalies.score", f"i-{number}", 4) for number in range(5)]
    [2, 3, 2, 2, 0]
    """
    return _seahash(step_id.encode() + b"\xff" + key.encode() + b"\xff") % files


def _seahash(data: bytes) -> int:
    a, b, c, d = 0x16F11FE89B0D677C, 0xB480A793D8E6C86C, 0x6FE2E5AAF078EBC9, 0x14F994A4C5259381
    for at in range(0, len(data), 8):
        a, b, c, d = b, c, d, _diffuse(a ^ int.from_bytes(data[at : at + 8], "little"))
    return _diffuse(a ^ b ^ c ^ d ^ len(data))


def _diffuse(word: int) -> int:
    word = word * 0x6EED0E9DA4D94A4F & MASK
    word ^= word >> 32 >> (word >> 60)
    return word * 0x6EED0E9DA4D94A4F & MASK
