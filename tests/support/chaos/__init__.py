"""Three nodes, two PostgreSQL servers, participants and the lines between them, and what can be done to them."""
