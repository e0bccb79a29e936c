"""`RunConfig` -> either target: keys whose counterpart is the same in TRL and in verl, or absent in both."""

from collections.abc import Mapping

from lowmem_rl.scale_out.counterparts import Counterpart, Deviation, equal, lacking

SHARED_TABLE: Mapping[str, Counterpart] = {
    "start_from": equal("", "the adapter starts at the base model, or where --continue says"),
    "adapter.u": equal(""),
    "adapter.weight_tying": equal(""),
    "trainable.select": equal(""),
    "trainable.select_top": equal(""),
    "trainable.select_rounds": equal(""),
    "trainable.schedule": equal("", "the same weights learn in all steps"),
    "trainable.every": equal(""),
    "trainable.active": equal(""),
    "trainable.order": equal(""),
    "trainable.state": equal(""),
    "trainable.percentile": equal(""),
    "trainable.freeze_rate": equal(""),
    "grpo.baseline": equal("", "the group's mean is subtracted"),
    "grpo.pairwise": equal("", "it is about which plans are refused, and changes no step"),
    "grpo.update_rows": equal("", "all rows of a group are trained on"),
    "rollout.stop_loops": equal("", "no completion is cut off"),
    "optimizer.milestones": equal(""),
    "optimizer.decay": equal(""),
    "memory.max_retries": lacking("running out of memory ends the run"),
    "health.action": lacking("the run is not audited"),
}

SHARED_DEVIATIONS = (
    Deviation(
        "grpo.baseline",
        lambda config: config.grpo.baseline == "median",
        lacking("the group's mean is subtracted"),
        instead={"grpo.baseline": "mean"},
    ),
    Deviation(
        "trainable.select",
        lambda config: config.trainable.select != "none",
        lacking("the layers are selected in the run"),
        fix="Name the layers that the run has selected: --set trainable.select=none --set trainable.layers=LIST.",
    ),
    Deviation(
        "trainable.schedule",
        lambda config: config.trainable.schedule != "fixed",
        lacking("other layers learn from time to time"),
        instead={
            "trainable.schedule": "fixed",
            "trainable.every": 20,
            "trainable.active": 1,
            "trainable.order": "auto",
            "trainable.state": "reset",
        },
    ),
    Deviation(
        "grpo.update_rows",
        lambda config: config.grpo.update_rows is not None,
        lacking("no choice of rows within a group"),
        instead={"grpo.update_rows": None},
    ),
    Deviation(
        "rollout.stop_loops",
        lambda config: config.rollout.stop_loops,
        lacking("no completion is cut off because it repeats itself"),
        instead={"rollout.stop_loops": False},
    ),
    Deviation(
        "curriculum.how",
        lambda config: config.curriculum.how == "window",
        lacking("the order is fixed before the run"),
        instead={"curriculum.by": "none", "curriculum.how": "easy_to_hard", "curriculum.rates": None},
    ),
)
