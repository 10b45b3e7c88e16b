"""The order of the tests, held against how xdist shares them out."""

from __future__ import annotations

from collections import Counter

from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from order import LONGEST, in_shares

names = st.sampled_from([*LONGEST[:6], *(f"test_short_{number}.py" for number in range(20))])


@given(st.lists(names, max_size=100), st.integers(1, 5))
def test_each_process_begins_with_its_part_of_the_longest(tests: list[str], processes: int) -> None:
    ordered = in_shares(tests, processes, str)
    assert Counter(ordered) == Counter(tests)
    # As xdist does.
    shares = []
    left = [*ordered]
    for place in range(processes):
        size = len(left) // (processes - place)
        shares.append(left[:size])
        del left[:size]
    sizes = Counter(name for name in tests if name in LONGEST)
    files_of_a_share = -(-len(sizes) // processes)
    if sizes and max(sizes.values()) * files_of_a_share <= len(tests) // processes:
        for share in shares:
            long = [name in LONGEST for name in share]
            assert long == sorted(long, reverse=True)
        for name in sizes:
            assert sum(name in share for share in shares) == 1


def test_every_file_of_the_longest_is_there() -> None:
    assert not [name for name in LONGEST if not (REPOSITORY / "tests" / name).exists()]
