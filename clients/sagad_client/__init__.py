"""The Python client of sagad, and sagactl."""
