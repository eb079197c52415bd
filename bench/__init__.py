"""Measures sagad beside the barest durable write path: `python -m bench`."""
