"""The participant SDK."""
