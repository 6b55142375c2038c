"""Measuring from outside: memory sources, the sampler process, the environment of a run.

`sources` (process-tree RSS, of `tree`) and `device` (a GPU through `nvml`, whose memory it is by
`tenants`) say what can be read at one instant, `sampler` is the process that reads them beside a worker
at the rate that `pace` sets, `sealing` turns its `spool` into the record's table, `gpus` lists what is
here, and `environment` notes the machine and the versions. The modules that the sampler process loads
import neither pydantic nor pandas: a run waits for its first sample.
"""
