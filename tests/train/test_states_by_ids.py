"""Whatever order a forward gives its tokens, each finds the states that were kept of it, or none of them is used."""

import pytest
import torch
from torch import Tensor

from lowmem_rl.engine.kept_states import KeptStates
from lowmem_rl.engine.states_by_ids import StatesByIds

HIDDEN, PAD, STOP = 3, 0, 9
PROMPTS = ([5, 6, 7], [8, 4])
COMPLETIONS = ([[1, 2, STOP], [1, STOP, PAD], [STOP, PAD, PAD]], [[3, 3, 3], [3, 1, STOP], [2, STOP, PAD]])
GROUP, WIDTH, LONGEST = 3, 3, 4
PROMPT_OF = [0] * GROUP + [1] * GROUP
NUMBERS = [7, 3, 4, 0, 2, 5]
"""Where the states of each row are kept."""


def sequence(row: int) -> list[int]:
    """The ids of a row without padding."""
    ids = [*PROMPTS[PROMPT_OF[row]], *COMPLETIONS[PROMPT_OF[row]][row % GROUP]]
    return [i for i in ids if i != PAD]


def state(ids: list[int]) -> Tensor:
    """What enters the layer at the last of these ids: of all of them, and of their order."""
    return torch.tensor([sum((place + 1) * i**power for place, i in enumerate(ids)) for power in (1, 2, 3)]).float()


def states_of(ids: list[int], start: int = 0) -> Tensor:
    return torch.stack([state(ids[: end + 1]) for end in range(start, len(ids))])


@pytest.fixture
def kept() -> StatesByIds:
    prompts = torch.zeros(2, LONGEST, HIDDEN)
    for prompt, ids in enumerate(PROMPTS):
        prompts[prompt, LONGEST - len(ids) :] = states_of(list(ids))
    completions, prompt_of = torch.full((8, WIDTH, HIDDEN), torch.nan), torch.zeros(8, dtype=torch.long)
    for row, number in enumerate(NUMBERS):
        found = states_of(sequence(row), len(PROMPTS[PROMPT_OF[row]]))
        completions[number, : len(found)], prompt_of[number] = found, PROMPT_OF[row]
    ids = [[PAD] * (LONGEST - len(PROMPTS[p])) + PROMPTS[p] + COMPLETIONS[p][r] for p in (0, 1) for r in range(GROUP)]
    batch = torch.tensor(ids)
    states = KeptStates(2, prompts, prompt_of, completions)
    return StatesByIds.of_batch(states, torch.tensor(NUMBERS), batch, batch[:, :LONGEST] != PAD, PAD)


def packed(rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, positions and states of rows one after the other."""
    ids = [sequence(row) for row in rows]
    positions = [torch.arange(len(row)) for row in ids]
    return (
        torch.tensor([[i for row in ids for i in row]]),
        torch.cat(positions)[None],
        torch.cat([states_of(row) for row in ids])[None],
    )


def test_one_packed_row(kept: StatesByIds) -> None:
    ids, positions, states = packed([0, 1, 2, 3, 4, 5])
    found = kept.of_forward(ids, positions.int())
    assert found is not None
    assert torch.equal(found, states)


def test_shared_prompts(kept: StatesByIds) -> None:
    ids, positions, states = list[int](), list[int](), list[Tensor]()
    for row in range(6):
        length = len(PROMPTS[PROMPT_OF[row]])
        start = 0 if row % GROUP == 0 else length
        ids += sequence(row)[start:]
        positions += range(start, len(sequence(row)))
        states.append(states_of(sequence(row), start))
    found = kept.of_forward(torch.tensor([ids]), torch.tensor([positions]))
    assert found is not None
    assert torch.equal(found[0], torch.cat(states))


def test_padded_rows_in_any_order(kept: StatesByIds) -> None:
    rows = [4, 1, 1, 5, 0]
    ids = torch.zeros(len(rows), 8, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(sequence(row))] = torch.tensor(sequence(row))
    found = kept.of_forward(ids, None)
    assert found is not None
    for place, row in enumerate(rows):
        length = len(sequence(row))
        assert torch.equal(found[place, :length], states_of(sequence(row)))
        assert not found[place, length:].any()


def test_one_row_alone_and_its_beginning(kept: StatesByIds) -> None:
    for row in range(6):
        for length in range(1, len(sequence(row)) + 1):
            ids = sequence(row)[:length]
            found = kept.of_forward(torch.tensor([ids]), torch.arange(length)[None])
            assert found is not None
            assert torch.equal(found[0], states_of(ids))


@pytest.mark.parametrize(
    ("ids", "positions"),
    [
        ([5, 6, 8], [0, 1, 2]),
        ([5, 6, 7, 1, 2, STOP, 1], [0, 1, 2, 3, 4, 5, 6]),
        ([5, 6, 7, 1, 2, 3, 3], [0, 1, 2, 3, 4, 3, 4]),
        ([1, 2], [3, 4]),
        ([5, 6, 1, 2], [0, 1, 3, 4]),
    ],
    ids=["another prompt", "longer than sampled", "another prompt's completion", "no prompt", "a hole"],
)
def test_other_ids_find_nothing(kept: StatesByIds, ids: list[int], positions: list[int]) -> None:
    assert kept.of_forward(torch.tensor([ids]), torch.tensor([positions])) is None
