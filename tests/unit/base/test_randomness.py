"""Names and uids: from entropy in blocks, never shared between processes, repeatable with a seed."""

from __future__ import annotations

import os
import re

from tiphys.base.clock import ENTROPY_BLOCK_BYTES, SUFFIX_ALPHABET, Randomness, format_time


def test_draws_differ_over_many_blocks() -> None:
    randomness = Randomness()
    uids = {randomness.uid() for _ in range(ENTROPY_BLOCK_BYTES)}
    assert len(uids) == ENTROPY_BLOCK_BYTES
    assert all(
        re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", uid) for uid in uids
    )


def test_suffixes_use_the_whole_alphabet_and_nothing_else() -> None:
    randomness = Randomness()
    letters = {letter for _ in range(500) for letter in randomness.suffix()}
    assert letters == set(SUFFIX_ALPHABET)
    assert len(randomness.suffix(9)) == 9


def test_numbers_stay_within_their_bounds() -> None:
    randomness = Randomness()
    assert {randomness.integer(3, 5) for _ in range(200)} == {3, 4, 5}
    assert all(0.5 <= randomness.uniform(0.5, 1.0) <= 1.0 for _ in range(200))


def test_a_child_of_fork_draws_on_its_own() -> None:
    randomness = Randomness()
    randomness.uid()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, randomness.uid().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100).decode() != randomness.uid()
    os.close(read)
    os.close(write)


def test_a_seed_repeats_itself() -> None:
    assert [Randomness(7).suffix(), Randomness(7).uid()] == [Randomness(7).suffix(), Randomness(7).uid()]


def test_times_have_whole_seconds_rounded_down() -> None:
    assert format_time(1_767_225_600.999) == "2026-01-01T00:00:00Z"
    assert format_time(-0.5) == "1969-12-31T23:59:59Z"
