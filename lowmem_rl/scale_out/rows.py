"""Examples as rows of parquet, in the schema of verl and SkyRL, and back.

Source:
    https://verl.readthedocs.io/en/latest/preparation/prepare_data.html: data_source, prompt, ability, reward_model,
    extra_info
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lowmem_rl.chat_templates.prompt_template import PromptTemplate
from lowmem_rl.errors import TaskError
from lowmem_rl.example import Example

Row = dict[str, Any]


def row_of(example: Example, split: str, index: int, task: str, template: PromptTemplate) -> Row:
    """Returns one row. Raises `TaskError` for an example that JSON cannot hold, or that the chat template refuses.

    `prompt` has the turns that the template takes; `extra_info` all that a reward reads of the example.
    """
    return {
        "data_source": f"lowmem_rl/{task}",
        "prompt": template.fit(example.prompt),
        "ability": task,
        "reward_model": {"style": "rule", "ground_truth": example.answer},
        "extra_info": {
            "index": index,
            "split": split,
            "id": example.id,
            "level": None if example.level is None else float(example.level),
            "prefill": template.prefill,
            "prompt": json.dumps(example.prompt),
            "extra": _json_of(example),
        },
    }


def _json_of(example: Example) -> str:
    try:
        return json.dumps(dict(example.extra), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        what = f"Example {example.id!r:.80} cannot be written as a row: its extra is no JSON ({str(error)[:120]})."
        raise TaskError(what, hint="Let the task put numbers, texts, lists and dictionaries into extra.") from error


def example_of(answer: str, extra_info: Mapping[str, Any]) -> Example:
    """Returns the example of a row: what a reward is given."""
    level = extra_info["level"]
    return Example(
        id=extra_info["id"],
        prompt=tuple(json.loads(extra_info["prompt"])),
        answer=answer,
        # Parquet, and pandas after it, may turn a missing level into NaN, which is unequal to itself.
        level=None if level is None or level != level else level,
        extra=json.loads(extra_info["extra"]),
    )


def read_rows(path: Path) -> list[Row]:
    """Returns the rows of a parquet file."""
    import pyarrow.parquet

    rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows as parquet. Raises `TaskError` for rows that it cannot hold."""
    import pyarrow
    import pyarrow.parquet

    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), _schema(rows[0])), path)
    except (pyarrow.ArrowException, UnicodeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        what = f"The examples cannot be written as parquet: {reason}."
        raise TaskError(
            what, hint="Let the task's texts be valid Unicode: `lowmem-rl tasks check` finds others."
        ) from error


def _schema(row: Row) -> Any:
    """Returns the columns' types; a turn's content is a text, or a list of parts."""
    import pyarrow as pa

    text = pa.string()
    part = pa.struct([("type", text), ("text", text)])
    content = text if isinstance(row["prompt"][0]["content"], str) else pa.list_(part)
    info: Row = dict.fromkeys(row["extra_info"], text) | {
        "index": pa.int64(),
        "level": pa.float64(),
    }
    return pa.schema(
        [
            ("data_source", text),
            ("prompt", pa.list_(pa.struct([("role", text), ("content", content)]))),
            ("ability", text),
            ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
            ("extra_info", pa.struct(list(info.items()))),
        ]
    )
