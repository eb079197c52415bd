"""Example participants."""
