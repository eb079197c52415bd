"""Example participants: inventory, payment and shipping, each with its own tables in its own PostgreSQL schema."""
