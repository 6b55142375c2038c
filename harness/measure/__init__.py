"""Measuring from outside: memory sources, the sampler process, the environment of a run.

`sources` (process-tree RSS) and `nvml` say what can be read at one instant, `sampler` is the
process that reads them beside a worker, `sealing` turns its spool into the record's table, and
`environment` notes the machine and the versions. The modules that the sampler process loads import
neither pydantic nor pandas: a run waits for its first sample.
"""
