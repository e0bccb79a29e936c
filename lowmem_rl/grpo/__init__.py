"""The parts of a GRPO step that need no trainer: functions on rows of tensors."""
