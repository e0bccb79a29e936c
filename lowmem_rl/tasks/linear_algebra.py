"""Matrix inverses and reduced row echelon forms, computed with exact fractions.

A matrix is written as `[[1/2, 0], [-3, 1]]`, in questions and in answers. Levels grow from 2x2 to 4x5.
"""

import random
from collections.abc import Callable
from fractions import Fraction

from lowmem_rl.tasks.procedural import GeneratedProblem, Generator, ProceduralTask

Matrix = tuple[tuple[Fraction, ...], ...]
_FORM = "Write the answer as rows in brackets with exact fractions, such as [[1/2, 0], [-3, 1]]."


def row_echelon(matrix: Matrix) -> Matrix:
    """Returns the reduced row echelon form (Gauss-Jordan)."""
    rows = [list(row) for row in matrix]
    rank = 0
    for column in range(len(rows[0])):
        pivot = next((i for i in range(rank, len(rows)) if rows[i][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        rows[rank] = [entry / rows[rank][column] for entry in rows[rank]]
        for i, row in enumerate(rows):
            if i != rank:
                rows[i] = [entry - row[column] * lead for entry, lead in zip(row, rows[rank], strict=True)]
        rank += 1
        if rank == len(rows):
            break
    return tuple(map(tuple, rows))


def inverse(matrix: Matrix) -> Matrix | None:
    """Returns the inverse of a square matrix, None for a singular one."""
    size = len(matrix)
    reduced = row_echelon(tuple((*row, *unit) for row, unit in zip(matrix, identity(size), strict=True)))
    is_inverse = tuple(row[:size] for row in reduced) == identity(size)
    return tuple(row[size:] for row in reduced) if is_inverse else None


def identity(size: int) -> Matrix:
    """Returns the identity matrix."""
    return tuple(tuple(Fraction(i == j) for j in range(size)) for i in range(size))


def product(left: Matrix, right: Matrix) -> Matrix:
    """Returns the matrix product."""
    columns = list(zip(*right, strict=True))
    return tuple(
        tuple(sum((a * b for a, b in zip(row, column, strict=True)), Fraction()) for column in columns) for row in left
    )


def text_of(matrix: Matrix) -> str:
    """Returns a matrix as `[[1/2, 0], [-3, 1]]`."""
    return "[" + ", ".join("[" + ", ".join(map(str, row)) + "]" for row in matrix) + "]"


def _random_matrix(rng: random.Random, rows: int, columns: int, largest: int) -> Matrix:
    return tuple(tuple(Fraction(rng.randint(-largest, largest)) for _ in range(columns)) for _ in range(rows))


def _square(rng: random.Random, size: int, largest: int) -> Matrix:
    return _random_matrix(rng, size, size, largest)


def _sheared(rng: random.Random, size: int, largest: int) -> Matrix:
    """Returns integers whose inverse has integers: the identity after adding rows to others, up to `largest`."""
    while True:
        rows = [list(row) for row in identity(size)]
        rng.shuffle(rows)
        for _ in range(3 * size):
            target, source = rng.sample(range(size), 2)
            factor = rng.choice((-2, -1, 1, 2))
            rows[target] = [a + factor * b for a, b in zip(rows[target], rows[source], strict=True)]
        if all(abs(entry) <= largest for row in rows for entry in row):
            return tuple(map(tuple, rows))


def _problem(matrix: Matrix, wanted: str, solution: Matrix) -> GeneratedProblem:
    text = text_of(matrix)
    return GeneratedProblem(text, text, f"Find the {wanted} of the matrix A. {_FORM}\nA = {text}", text_of(solution))


def _invertible(draw: Callable[[random.Random, int, int], Matrix], size: int, largest: int) -> Generator:
    """Returns a generator of square matrices that have an inverse, with entries up to `largest`."""

    def generate(rng: random.Random) -> GeneratedProblem:
        while True:
            matrix = draw(rng, size, largest)
            solution = inverse(matrix)
            if solution and solution != matrix:
                return _problem(matrix, "inverse", solution)

    return generate


def _reducible(rows: int, columns: int, rank: int) -> Generator:
    """Returns a generator of matrices of a rank, as products of two factors with small entries."""

    def generate(rng: random.Random) -> GeneratedProblem:
        while True:
            matrix = product(_random_matrix(rng, rows, rank, 3), _random_matrix(rng, rank, columns, 3))
            solution = row_echelon(matrix)
            if solution != matrix and sum(any(row) for row in solution) == rank:
                return _problem(matrix, "reduced row echelon form", solution)

    return generate


_REWARDS = ("boxed_answer", "matrix_rows", "matrix_frobenius", "matrix_l1")

MATRIX_INVERSE = ProceduralTask(
    name="matrix_inverse",
    summary="inverses of 2x2 and 3x3 matrices, in integers, then in fractions",
    generators={
        1: _invertible(_sheared, 2, 9),
        2: _invertible(_square, 2, 9),
        3: _invertible(_sheared, 3, 9),
        4: _invertible(_square, 3, 5),
    },
    rewards=_REWARDS,
)

RREF = ProceduralTask(
    name="rref",
    summary="reduced row echelon forms of 2x3 to 4x5 matrices, also with dependent rows",
    generators={1: _reducible(2, 3, 2), 2: _reducible(3, 3, 2), 3: _reducible(3, 4, 3), 4: _reducible(4, 5, 3)},
    rewards=_REWARDS,
)
