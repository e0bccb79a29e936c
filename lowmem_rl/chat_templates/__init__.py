"""Chat templates: read from a model's files, rendered as transformers renders them, and what each of them accepts."""
