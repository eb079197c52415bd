"""Calls participants: those of the configuration, and nobody else.

A `Dispatcher` per participant says which call may go when. It goes in a `Session` where the participant has them, else
as an RPC of its own (`unary`). `link` drives both, and `grpc` has all participants.
"""
