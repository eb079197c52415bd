-- Lists, each by an index in their own order, however many sagas there are. Each is read for one state at a time, and what
-- the states give is merged: so no other index is needed for all states together.

DROP INDEX sagad.saga_listed;
CREATE INDEX saga_listed ON sagad.saga (namespace, state, create_time DESC, saga_id) WHERE purge_time IS NULL;

-- Of one definition version; and whether it is in use.
DROP INDEX sagad.saga_definition;
CREATE INDEX saga_definition ON sagad.saga (namespace, definition_id, version, state, create_time DESC, saga_id)
    WHERE definition_id IS NOT NULL;

-- Of one category of failure.
CREATE INDEX saga_failed ON sagad.saga (namespace, category, state, create_time DESC, saga_id)
    WHERE category <> 0 AND purge_time IS NULL;
