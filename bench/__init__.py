"""Measures sagad beside the barest durable write path: `python -m bench`."""

import os

# The bench starts processes while it holds gRPC channels of its own, which none of them inherits.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
