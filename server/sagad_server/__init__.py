"""The sagad coordinator."""
