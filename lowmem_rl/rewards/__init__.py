"""How a completion is scored. `reward_registry.load_reward_set` is the entry point."""
