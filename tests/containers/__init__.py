"""Real containers for the tests marked `docker`: an engine, a base image and the harness's images.

`python -m tests.containers.prepare` does it from the command line; `fixtures` does it for pytest.
"""
