"""Which scores pay the form of a completion and not what it says."""

from lowmem_rl.health.history import RunHistory

FORMS = ("answer_tags", "tag_count")


def form_scores(record: RunHistory) -> list[str]:
    """Returns the names of a run's rewards for form: ours, and those of others that say so by their name."""
    return [name for name, weight in record.config.rewards.items() if weight > 0 and is_form(name)]


def is_form(name: str) -> bool:
    return name in FORMS or "format" in name.lower()
