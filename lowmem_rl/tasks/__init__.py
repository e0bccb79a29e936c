"""What a model is trained on. `task_registry.load_task` is the entry point."""
