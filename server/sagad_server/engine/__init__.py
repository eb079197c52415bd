"""Drives sagas: timers, calls, and the order of write, then act."""
