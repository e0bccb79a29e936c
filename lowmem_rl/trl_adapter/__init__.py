"""The only files that touch private members of TRL and transformers."""
