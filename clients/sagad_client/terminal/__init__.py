"""How sagactl shows what it knows."""
