-- The barrier of a participant: one row for each idempotency key and kind of call. Safe to run again.
CREATE TABLE IF NOT EXISTS {table} (
    idempotency_key  text        NOT NULL,
    kind             smallint    NOT NULL, -- 1 action, 2 compensation
    status           smallint    NOT NULL, -- 0 running (never committed), 1 succeeded, 2 refused, 3 pending, 4 closed
    answer           bytea,                -- sagad.v1.StepOutcome, serialized
    fencing_token    bigint      NOT NULL, -- the highest seen
    namespace        text        NOT NULL,
    saga_id          text        NOT NULL,
    step_id          text        NOT NULL,
    completion_token text,                 -- set while the work is pending, or completed and the coordinator not told
    created_at       timestamptz NOT NULL DEFAULT now(),
    touched_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (idempotency_key, kind)
) WITH (fillfactor = 80); -- each row is updated once, in the transaction that inserts it

-- What workers look for.
CREATE INDEX IF NOT EXISTS "{name}_completion" ON {table} (created_at) WHERE completion_token IS NOT NULL;

-- What is old enough to be pruned.
CREATE INDEX IF NOT EXISTS "{name}_touched" ON {table} USING brin (touched_at);
