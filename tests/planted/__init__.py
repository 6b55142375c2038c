"""Faults of one line, planted in a copy of TRL, PEFT or transformers, and what the comparison says of them."""
