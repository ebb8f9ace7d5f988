"""The seeds of a study that ends when it is decided: in which rounds they come, and who still needs them.

A look is allowed after every seed from the first on that can show anything, so the rounds are a matter of
cost alone. A round that is too long makes seeds after the answer is known; one of single seeds trains them
alone, where a pair takes 1.24 times as long as one of them (`packs.STEPS`), and waits for a look after each.
So there are two seeds to a round, and more only where that is an eighth of those before, which no answer
misses.
Which seeds are a round, and so which train together, follows from the study's seeds alone, never from timing.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

LEAST, SHARE = 2, 8


def form_rounds(seeds: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The seeds of each round: 6, 2, 2, 2, 2, 2, 2, 2, 2, then 3 after 24, 4 after 32 and so on."""
    from hkrun.stats import FIRST_LOOK  # SciPy, which those who only read a plan do without

    rounds: list[tuple[int, ...]] = []
    first = 0
    while first < len(seeds):
        number = max(LEAST, first // SHARE) if rounds else FIRST_LOOK
        rounds.append(tuple(seeds[first : first + number]))
        first += number
    return tuple(rounds)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is known of a study's questions.

    Attributes:
        needs: For each question that is open, the cells that it is about, by cell_id.
        answers: For each question, in words, its answer; empty where it is open.
        seeds: By cell_id, how many seeds have a result.
        summary: All of it in a sentence.
    """

    needs: tuple[frozenset[str], ...]
    answers: Mapping[str, str] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)
    summary: str = ""

    def document(self) -> list[dict[str, str | None]]:
        """The questions and their answers, None where one is open, as `--json` prints them."""
        return [{"question": text, "answer": answer or None} for text, answer in self.answers.items()]

    @property
    def wanted(self) -> frozenset[str]:
        """The cells that an open question is about."""
        return frozenset().union(*self.needs)

    @property
    def decided(self) -> dict[str, int]:
        """The cells that no open question is about, and at how many seeds."""
        return {cell: number for cell, number in self.seeds.items() if cell not in self.wanted}


def expect_questions(cells: Collection[str], reference: str) -> Look:
    """The look at a study before anything can be decided: each cell is to be compared with the reference."""
    return Look(needs=tuple(frozenset((reference, cell)) for cell in cells if cell != reference))


def find_allowed(
    needs: Collection[frozenset[str]], completed: Mapping[str, int]
) -> frozenset[tuple[str, int]]:
    """The rounds that may begin, by cell_id and their number from 0.

    A question that is open takes the next round of each of its cells when all of them have completed the one
    before; so no cell runs ahead of what it is compared with, and none waits for cells that it is not.

    Args:
        needs: The cells of each open question.
        completed: By cell_id, how many rounds were complete when the question was found open, from the first
            on without a gap; cells that have completed all are not in it.
    """
    allowed: set[tuple[str, int]] = set()
    for cells in needs:
        next_round = min((completed[cell] for cell in cells if cell in completed), default=0)
        allowed |= {(cell, number) for cell in cells for number in range(next_round + 1)}
    return frozenset(allowed)
