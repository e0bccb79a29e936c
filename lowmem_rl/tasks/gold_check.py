"""Golds that nobody can answer: a worked solution in place of its answer, a sentence, a mark of a missing answer.

Each of them passes if it is tried as its own perfect completion. So the golds are read as texts, and what the rows
themselves state, in a solution or an option, must earn the reward.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lowmem_rl.example import Example
from lowmem_rl.tasks.gold_answer import find_answer, option_of
from lowmem_rl.tasks.source_row import SourceRow
from lowmem_rl.tasks.task_finding import TOLERATED_SHARE, Level, TaskFinding
from lowmem_rl.verify import verify
from lowmem_rl.verify.extract import lenient_answer

_LONG_SENTENCE = 20
"""Words. Nobody writes such a text a second time."""
_PLACEHOLDERS = {
    *("proof", "notfound", "not found", "mcq", "none", "null", "nan", "n/a", "unknown", "see solution", "see above"),
    *("tbd", "todo", "invalid", "no answer", "not available", "not provided", "unanswerable", "missing"),
}
"""What data sets write if a row has no answer; three are NuminaMath-1.5's (AI-MO/NuminaMath-1.5, discussion 1)."""
_FRAMES = re.compile(r"\\(?:text|mathrm|textbf)\s*(?=\{)|[\[\](){}<>$*_\s.]+")
_OPTION_COLUMNS = ("choices.text", "options.text", "choices", "options", "endings")
_OPTION_NAME = re.compile(r"\(?([A-Ja-j]|\d)\)?")
_OPTION_MARK = re.compile(r"\(?[A-Ja-j][).:]\s*")
_LATEX = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+|[$_^{}\\]")
_UNSPACED = re.compile(r"[\u3040-\u9fff\uac00-\ud7af]")
"""Characters of scripts without spaces; two count as a word."""
_WORD = re.compile(r"[^\W\d_\u3040-\u9fff\uac00-\ud7af]{2,}")
_SENTENCE_END = re.compile(r"[.!?][\"')]*\s+(?=[^\W\d_])|[。！？]|\n+")
_STATES = re.compile(r"\w\W+(?:is|are|was|were|has|have|had|will|can|equals?|costs?|needs?|gets?)\b", re.IGNORECASE)


class _Fault(NamedTuple):
    """A kind of fault, and the share of golds above which it prevents training."""

    what: str
    fix: str
    refused_above: float


_NOT_ALONE = "Let task.answer take the answer out of the text, or name another column in task.columns."
_TAKE_OUT = "Take such rows out of the data: nothing is learned from them."
_FORMS = {
    "after_hashes": _Fault("hold ####", _NOT_ALONE, TOLERATED_SHARE),
    "last_box": _Fault("hold a box", _NOT_ALONE, TOLERATED_SHARE),
    "after_answer_is": _Fault('say "answer is"', _NOT_ALONE, TOLERATED_SHARE),
}
_PROSE = _Fault(
    "are sentences, which no completion repeats",
    "Name the column of short answers in task.columns, or take such rows out of the data.",
    TOLERATED_SHARE,
)
_OPTION = _Fault(
    "are an option's letter with its text, of which one alone earns nothing",
    "task.answer=letter takes the letter.",
    0.5,
)
_UNSHOWN = _Fault(
    "name an option that the question does not show", "Write the options into the text of the question.", 0.5
)
_PLACEHOLDER = _Fault("only mark that there is no answer", _TAKE_OUT, 0.5)
_CONFLICT = _Fault("differ from what the row's own solution states", _TAKE_OUT, 0.5)
_MISREAD = _Fault(
    'are read as something else in "The answer is ..."', "Ask for a box and pay boxed_answer, or shorten them.", 1.0
)


def check_gold_texts(examples: Sequence[Example]) -> list[TaskFinding]:
    """Returns what is wrong with the golds of examples whose rewards compare answers as texts."""
    found: dict[_Fault, list[Example]] = defaultdict(list)
    for example in examples:
        if fault := _fault_of(example):
            found[fault].append(example)
    return [
        TaskFinding(level, f"{len(hits)} of {len(examples)} golds {fault.what}, {_such_as(hits[0])}", fault.fix)
        for fault, hits in found.items()
        if (level := _level(fault, len(hits) / len(examples)))
    ]


def reading_notes(examples: Sequence[Example]) -> list[TaskFinding]:
    """Returns how rows were read whose columns or answers were found, not named."""
    readings = Counter(example.extra.get("read_as") for example in examples)
    fix = "Set task.columns or task.answer for another reading."
    notes = [
        TaskFinding("note", f"{count} of {len(examples)} rows are read as {reading}", fix)
        for reading, count in readings.most_common()
        if reading
    ]
    if several := [example for example in examples if len(example.golds) > 1]:
        what = f"{len(several)} of {len(examples)} rows accept each answer of a list, such as {several[0].golds!r:.60}"
        return [*notes, TaskFinding("note", what, "If all of them are one answer, write that as text, such as '1, 2'.")]
    return notes


def _such_as(example: Example) -> str:
    return f"such as {example.answer!r:.60} of {example.id!r}"


def _level(fault: _Fault, share: float) -> Level | None:
    if share > fault.refused_above:
        return "error"
    return "note" if fault.refused_above == TOLERATED_SHARE or share > TOLERATED_SHARE else None


def _fault_of(example: Example) -> _Fault | None:
    gold = example.answer
    taken = find_answer(gold)
    if taken.form != "whole":
        is_alone = verify(taken.text, gold) and not _words(gold.replace(taken.text, ""))
        return None if is_alone else _FORMS[taken.form]
    if not gold.strip(" -–—?./_*") or " ".join(_FRAMES.sub(" ", gold).split()).casefold() in _PLACEHOLDERS:
        return _PLACEHOLDER
    if _OPTION_NAME.fullmatch(gold) and _hides_options(example):
        return _UNSHOWN
    option = option_of(gold)
    if option and option.text and not (verify(option.letter, gold) and verify(option.text, gold)):
        return _OPTION
    words = _words(gold)
    if words and (_is_prose(gold, words) or (_misreads(gold) and _STATES.search(gold))):
        return _PROSE
    if _contradicts(str(example.extra.get("reasoning") or ""), example.golds):
        return _CONFLICT
    return _MISREAD if words and _misreads(gold) else None


def _hides_options(example: Example) -> bool:
    """Returns whether a row holds options of which the answer names one, and its question shows less than half."""
    row = SourceRow(example.id, example.extra)
    held = next((row.value(column) for column in _OPTION_COLUMNS if row.has(column)), None)
    options = [_option_text(one) for one in (held.values() if isinstance(held, Mapping) else _list_of(held))]
    is_value = any(re.search(rf"(?<!\w){re.escape(example.answer)}(?!\w)", option) for option in options)
    return len(options) > 1 and not is_value and 2 * sum(one in example.question for one in options) < len(options)


def _list_of(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


def _option_text(option: object) -> str:
    """Returns an option without its letter: Paris of `B) Paris` or of `{"label": "B", "text": "Paris"}`."""
    texts = map(str, option.values()) if isinstance(option, Mapping) else [str(option)]
    return _OPTION_MARK.sub("", max(texts, key=len, default=""))


def _words(text: str) -> int:
    plain = _LATEX.sub(" ", text)
    return len(_WORD.findall(plain)) + len(_UNSPACED.findall(plain)) // 2


def _is_prose(gold: str, words: int) -> bool:
    """Returns whether a text is one long sentence, or several of at least two words."""
    return words > _LONG_SENTENCE or sum(_words(part) > 1 for part in _SENTENCE_END.split(gold)) > 1


def _misreads(gold: str) -> bool:
    reading = lenient_answer(f"The answer is {gold}")
    return reading is None or not verify(reading, gold)


def _contradicts(solution: str, golds: Sequence[str]) -> bool:
    """Returns whether a solution that states an answer, tried as a completion, does not earn the reward."""
    if find_answer(solution).form == "whole":
        return False
    reading = lenient_answer(solution)
    return reading is None or not any(verify(reading, gold) for gold in golds)
