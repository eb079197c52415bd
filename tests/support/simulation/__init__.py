"""Several nodes on a virtual clock in a seeded world. `python -m support.simulation` runs it from the command line."""
