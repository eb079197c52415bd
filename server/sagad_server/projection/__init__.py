"""The projection: keeps a read model of all sagas in MongoDB, from the topic that the mirror fills."""
