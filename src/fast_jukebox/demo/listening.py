"""Listening tests: pairs of songs heard blind, which of them a third one is, and which is liked better."""

from __future__ import annotations

import csv
import io
import json
import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fast_jukebox.demo.sounds import is_token, new_token
from fast_jukebox.utils.files import write_file

SAME = "same"
"""No preference."""
_RECORD = "test.json"


@dataclass(frozen=True)
class Trial:
    """One pair: the songs of both systems for one seed, heard as A, B and X.

    Attributes:
        seed: of both songs.
        first: number of the system that is heard as A, 0 or 1; the other one is B.
        x: which of them X is, `"A"` or `"B"`.
        sounds: names of the sounds of A, B and X.
        answer: the listener's answer for X; empty where not answered.
        preferred: `"A"`, `"B"` or [`SAME`]; empty where not answered.
    """

    seed: int
    first: int
    x: str
    sounds: tuple[str, str, str]
    answer: str = ""
    preferred: str = ""

    @property
    def right(self) -> bool:
        """X was recognised."""
        return self.answer == self.x

    @property
    def liked(self) -> int | None:
        """Number of the system that was preferred; `None` for neither."""
        return None if self.preferred in ("", SAME) else self.first if self.preferred == "A" else 1 - self.first


@dataclass(frozen=True)
class Tally:
    """A listener's answers, summed up.

    Attributes:
        answered: pairs.
        right: pairs in which X was recognised.
        p_value: chance of as many right answers or more by guessing (binomial test, one-sided); 1 where none is
            answered.
        liked: how often each system was preferred.
        preference_p_value: chance of a preference as one-sided or more where both are equally good (sign test,
            two-sided, ties left out).
    """

    answered: int
    right: int
    p_value: float
    liked: tuple[int, int]
    preference_p_value: float


@dataclass(frozen=True)
class ListeningTest:
    """A blind test of two systems.

    Attributes:
        key: its name, which opens it.
        systems: what the two are, in words.
        created: seconds since 1970.
        trials: the pairs.
    """

    key: str
    systems: tuple[str, str]
    created: float
    trials: tuple[Trial, ...]

    @property
    def current(self) -> int | None:
        """Number of the first pair without an answer; `None` when all are answered."""
        return next((index for index, trial in enumerate(self.trials) if not trial.answer), None)

    def tally(self) -> Tally:
        """The answers so far, summed up."""
        answered = [trial for trial in self.trials if trial.answer]
        right = sum(trial.right for trial in answered)
        liked = tuple(sum(trial.liked == system for trial in answered) for system in (0, 1))
        both = sum(liked)
        sign = min(1.0, 2 * at_least(max(liked), both)) if both else 1.0
        return Tally(len(answered), right, at_least(right, len(answered)), (liked[0], liked[1]), sign)

    def answered(self, answer: str, preferred: str) -> ListeningTest:
        """The test with an answer to its current pair; a `ValueError` for what is none."""
        if answer not in ("A", "B"):
            raise ValueError("X must be taken for A or for B")
        if preferred not in ("A", "B", SAME):
            raise ValueError("Preference must be A, B or neither")
        if self.current is None:
            raise ValueError("all pairs are answered")
        trials = list(self.trials)
        trials[self.current] = replace(trials[self.current], answer=answer, preferred=preferred)
        return replace(self, trials=tuple(trials))


def at_least(successes: int, trials: int) -> float:
    """Chance of so many heads or more in throws of a fair coin."""
    return sum(math.comb(trials, count) for count in range(successes, trials + 1)) / 2**trials


def blind_trials(seeds: Sequence[int]) -> list[tuple[int, int, str]]:
    """Seed, system heard as A, and what X is, of each pair: drawn so that nobody can foresee them."""
    return [(seed, secrets.randbelow(2), "AB"[secrets.randbelow(2)]) for seed in seeds]


class ListeningTests:
    """Tests in a folder, with their tallies as tables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, systems: tuple[str, str], trials: Sequence[Trial]) -> ListeningTest:
        """Keep a new test."""
        test = ListeningTest(new_token(), systems, time.time(), tuple(trials))
        (self.folder / test.key).mkdir()
        self.write(test)
        return test

    def read(self, key: object) -> ListeningTest:
        """A test by its key; a `ValueError` where there is none, or it is damaged."""
        if not isinstance(key, str) or not is_token(key):
            raise ValueError("there is no listening test of this key in the studio")
        try:
            record = json.loads((self.folder / key / _RECORD).read_text(encoding="utf-8"))
            trials = tuple(Trial(**{**trial, "sounds": tuple(trial["sounds"])}) for trial in record.pop("trials"))
            return ListeningTest(**{**record, "systems": tuple(record["systems"])}, trials=trials)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError("there is no listening test of this key in the studio") from error

    def write(self, test: ListeningTest) -> None:
        """Keep a test and its tally, as `tally.csv` (a pair a line) and `tally.json`."""
        place = self.folder / test.key
        write_file(place / _RECORD, json.dumps(asdict(test)))
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow(["pair", "seed", "A", "B", "X", "answer", "right", "preferred"])
        for index, trial in enumerate(test.trials):
            if trial.answer:
                named = (test.systems[trial.first], test.systems[1 - trial.first])
                liked = SAME if trial.liked is None else test.systems[trial.liked]
                row = [index + 1, trial.seed, *named, trial.x, trial.answer, int(trial.right), liked]
                writer.writerow([_plain(cell) for cell in row])
        write_file(place / "tally.csv", table.getvalue())
        summary = {"systems": test.systems, "pairs": len(test.trials), **asdict(test.tally())}
        write_file(place / "tally.json", json.dumps(summary, indent=1) + "\n")


def _plain(cell: object) -> object:
    """A cell that a spreadsheet does not take for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in "=+-@\t" else cell
