"""The contract of sagad."""
