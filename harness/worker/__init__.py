"""One run, inside its own process: the only code of the harness that imports torch and TRL.

A run's folder goes in, a record comes out. Read `__main__` first, then `sft` or `grpo`.
"""
