"""Trainer and sampler give the same tokens different log-probs: two models, where the loss assumes one.

The sampler compares itself with the trainer in each rollout and falls back where rounding does not explain the gap;
rows hold `sampler_fell_back` then. vLLM and `generate` are not compared.
"""

from lowmem_rl.health.finding import AGO, Finding, Needs, Symptom
from lowmem_rl.health.record import Record

NAME = "sampler_mismatch"


def look(record: Record) -> Finding | None:
    fallen = [row for row in record.rows[-AGO:] if row.get("sampler_fell_back")]
    if not fallen:
        return None
    first, last = fallen[0]["step"], fallen[-1]["step"]
    gap = fallen[-1].get("rollout_gap_nats")
    return Finding(
        NAME,
        "warning",
        (first, last),
        0.95,
        f"The sampler's log-probs of its own tokens lay {'no number of' if gap is None else f'{gap:.2g}'} nats a token "
        f"from the trainer's in step {last}. Since then it computes in the model's own way, slower.",
        "Another model than the trained one wrote that step's completions: please report it with engine.json; "
        "rollout.engine=generate avoids it.",
    )


SYMPTOM = Symptom(NAME, Needs(metrics=("rollout_gap_nats",)), look)
