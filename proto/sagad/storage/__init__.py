"""Private: what the coordinator stores."""
