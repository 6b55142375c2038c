"""`python -m harness.worker.replay OUTPUT.json`: what this stack makes of a frozen corpus.

Reward functions, chat templates, tokenisation, packing, collation and the losses' small functions are
played back on fixed input, and one saved checkpoint is evaluated by the harness's own evaluation. Two
stacks that give the same values read, score and judge alike, so a difference between their runs comes from
training; if the checkpoint evaluates otherwise, a change of the final metric is none of training.

The contract. OUTPUT.json is one JSON object: {"format": 1, "values": {NAME: VALUE, …}, "absent": [NAME, …],
"notes": [SENTENCE, …]}. A name such as `reward/accuracy_reward/fraction` says what, of which function, for
which row; a value is text, a number, a bool or null. What a release does not have is listed as absent; what
raises has `raises TYPE` for its value. `--checkpoint DIR` evaluates another model than the embedded one,
`--only PART` plays one part back, `--fingerprint` prints a hash of what is installed, at once, instead.

What this leaves out: training, which the probes look at, and comparing (`compare/replay`).
"""
