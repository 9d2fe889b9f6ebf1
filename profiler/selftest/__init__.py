"""`profile selftest`: what can be verified on this machine, run for real, and a record of it."""
