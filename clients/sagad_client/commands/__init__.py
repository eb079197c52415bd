"""The commands of sagactl, one noun a module."""
