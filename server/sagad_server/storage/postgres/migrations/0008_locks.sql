-- Resource locks: who holds them, and who waits for them since when. No two indexes begin or go on with a column
-- that is asked for: while the table is young, the planner would take any of them.

CREATE SEQUENCE sagad.lock_token;

CREATE TABLE sagad.lock (
    namespace text COLLATE "C" NOT NULL,
    saga_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    resource text COLLATE "C" NOT NULL GENERATED ALWAYS AS (namespace || '/' || name) STORED,
    ticket bigint GENERATED ALWAYS AS IDENTITY,
    fencing_token bigint,
    request_time timestamptz NOT NULL DEFAULT now(),
    take_time timestamptz,
    PRIMARY KEY (namespace, saga_id, ticket)
) WITH (fillfactor = 70);

COMMENT ON TABLE sagad.lock IS 'what moving and parked sagas hold and wait for; the rows of a saga go when it ends';
COMMENT ON COLUMN sagad.lock.ticket IS 'the place in the queue';
COMMENT ON COLUMN sagad.lock.fencing_token IS 'null while it waits';

-- This is what makes a lock a lock.
CREATE UNIQUE INDEX lock_holder ON sagad.lock (resource) WHERE fencing_token IS NOT NULL;
CREATE INDEX lock_queue ON sagad.lock (resource, ticket);
