"""An archive with everything that a machine without internet needs: `pack` makes it, `install` uses it.

bundle.json               first member: what is in it, for which Python and machine, sha256 of every file
README.txt                three commands
wheels/core/              the profiler (with its backends and workloads) and what it imports
wheels/ENVIRONMENT/       per engine environment: they pin conflicting versions, so each has a folder of its own
models/KEY/ variants/KEY/ as they lie in the cache
"""
