"""A claim's word from what a study measured: `supported`, `refuted`, `inconclusive` or `not tested`.

`model` says what a verdict is, `evidence` what it is read from, a module a rule says how, `judge` puts
them together and corrects for there being many claims. What this leaves out: what a claim is
(`claim_spec`), and how a verdict is shown.
"""
