"""The rules of sagas. Pure: no I/O, no clock, no random source."""
