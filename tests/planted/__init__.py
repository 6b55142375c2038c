"""Faults of one line, planted in copies of TRL, PEFT or transformers, and what is said of them."""
