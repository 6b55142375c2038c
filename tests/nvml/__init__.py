"""A scripted NVML and the traces that it plays; `python -m tests.nvml --help` runs any command on one."""
