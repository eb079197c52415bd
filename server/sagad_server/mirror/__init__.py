"""The mirror: relays the journal to Kafka, each event exactly once for a `read_committed` consumer."""
