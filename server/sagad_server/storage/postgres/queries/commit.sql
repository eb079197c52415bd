-- The statements of the writer are made of these parts, because a transaction may hold one statement and no more. Arrays
-- hold one element for each write, in the order of keys: rows are locked in that order by everybody, and nobody deadlocks.
-- An array that holds nothing but the default is sent empty.

-- name: advance
-- Writes transitions of existing sagas where the guard holds.
-- The guard is looked at, and the row locked, in a LATERAL subquery: joined with the table in any other way, a young
-- table is scanned for every batch. purge_time is compared without IS NULL for the same reason: with it, the planner may
-- take a partial index in place of the primary key.
t AS MATERIALIZED (
    SELECT l.ctid, w.*
    FROM unnest(
        $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::boolean[], $8::smallint[], $9::smallint[],
        $10::bytea[], $11::bytea[], $12::bytea[], $13::smallint[], $14::bigint[], $15::integer[], $16::smallint[],
        $17::boolean[], $18::boolean[]
    ) WITH ORDINALITY AS w (
        namespace, saga_id, revision, guard_epoch, takes_over, state, cause,
        body, event, payload, relay_partition, wake_after_ms, parking_mask, category,
        ended, release, ordinal
    ),
    LATERAL (
        SELECT s.ctid
        FROM sagad.saga AS s
        WHERE s.namespace = w.namespace AND s.saga_id = w.saga_id
            AND s.revision = w.revision - 1 AND s.epoch = w.guard_epoch
            AND coalesce(s.purge_time, 'infinity') = 'infinity'
        FOR UPDATE
    ) AS l
),
u AS (
    UPDATE sagad.saga AS s
    SET revision = t.revision,
        epoch = t.guard_epoch + CASE WHEN t.takes_over THEN 1 ELSE 0 END,
        state = t.state,
        owner = CASE WHEN t.release THEN NULL ELSE $2::uuid END,
        wake_at = CASE WHEN t.release THEN now() + t.wake_after_ms * interval '1 ms' END,
        update_time = now(),
        end_time = CASE WHEN t.ended THEN coalesce(s.end_time, greatest(now(), s.create_time)) END,
        parking_mask = coalesce(t.parking_mask, 0),
        category = coalesce(t.category, 0),
        crashes = 0,
        incident_id = '',
        park_time = NULL,
        body = t.body
    FROM t
    WHERE s.ctid = t.ctid
    RETURNING
        t.ordinal, t.namespace, t.saga_id, t.revision, t.cause, t.relay_partition, t.event, t.payload,
        t.category, t.parking_mask
)

-- name: start
-- Inserts new sagas whose key is free and whose definition version exists. The version's row is locked against deletion.
n AS MATERIALIZED (
    SELECT *
    FROM unnest(
        $19::text[], $20::text[], $21::smallint[], $22::smallint[], $23::bytea[], $24::bytea[],
        $25::bytea[], $26::smallint[], $27::bigint[], $28::integer[], $29::smallint[], $30::boolean[],
        $31::boolean[], $32::bigint[], $33::uuid[], $34::integer[], $35::text[], $36::bytea[]
    ) WITH ORDINALITY AS w (
        namespace, saga_id, state, cause, body, event,
        payload, relay_partition, wake_after_ms, parking_mask, category, ended,
        release, epoch, uid, recipe, labels, request_hash, ordinal
    )
),
d AS MATERIALIZED (
    SELECT w.recipe, w.definition_id, w.version
    FROM unnest($37::text[], $38::text[], $39::text[])
        WITH ORDINALITY AS w (namespace, definition_id, version, recipe),
    LATERAL (
        SELECT
        FROM sagad.definition AS f
        WHERE f.namespace = w.namespace AND f.definition_id = w.definition_id AND f.version = w.version
        FOR KEY SHARE
    ) AS l
),
i AS (
    INSERT INTO sagad.saga (
        namespace, saga_id, uid, definition_id, version, labels, request_hash, revision, epoch, state,
        owner,
        wake_at,
        create_time, update_time,
        end_time,
        parking_mask, category, body
    )
    SELECT
        n.namespace, n.saga_id, n.uid, d.definition_id, d.version, n.labels::jsonb, n.request_hash, 1, n.epoch, n.state,
        CASE WHEN n.release THEN NULL ELSE $2::uuid END,
        CASE WHEN n.release THEN now() + n.wake_after_ms * interval '1 ms' END,
        now(), now(),
        CASE WHEN n.ended THEN now() END,
        coalesce(n.parking_mask, 0), coalesce(n.category, 0), n.body
    FROM n JOIN d USING (recipe)
    {free}ORDER BY n.ordinal
    ON CONFLICT DO NOTHING
    RETURNING uid
)

-- name: journal_advanced
e AS (
    INSERT INTO sagad.event (
        namespace, saga_id, revision, batch_id, cause, time, relay_partition, body, payload, category, parking_mask
    )
    SELECT
        u.namespace, u.saga_id, u.revision, $1::uuid, u.cause, now(), u.relay_partition, u.event, u.payload,
        u.category, u.parking_mask
    FROM u
)
SELECT now() AS time, NULL::bigint[] AS started, array_agg(u.ordinal) AS advanced
FROM u

-- name: journal_all
w AS (
    SELECT
        n.ordinal, n.namespace, n.saga_id, n.cause, n.relay_partition, n.event, n.payload, n.category, n.parking_mask
    FROM i JOIN n USING (uid)
),
e AS (
    INSERT INTO sagad.event (
        namespace, saga_id, revision, batch_id, cause, time, relay_partition, body, payload, category, parking_mask
    )
    SELECT
        w.namespace, w.saga_id, 1, $1::uuid, w.cause, now(), w.relay_partition, w.event, w.payload,
        w.category, w.parking_mask
    FROM w
    UNION ALL
    SELECT
        u.namespace, u.saga_id, u.revision, $1::uuid, u.cause, now(), u.relay_partition, u.event, u.payload,
        u.category, u.parking_mask
    FROM u
)

-- name: answer_all
-- `started` is asked for first: new sagas are inserted before the first row is locked, by every writer.
SELECT
    now() AS time,
    (SELECT array_agg(w.ordinal) FROM w) AS started,
    (SELECT array_agg(u.ordinal) FROM u) AS advanced

-- name: free
-- The condition in `start`, for batches with locks.
WHERE NOT EXISTS (SELECT FROM h WHERE h.ordinal = n.ordinal)

-- name: wanted_locks
-- Whoever takes or grants a lock holds an advisory lock of its class from before the token is drawn until the commit: so
-- tokens grow in the order of holders. There are 64 classes, since a transaction may not hold any number of such locks.
wanted AS MATERIALIZED (
    SELECT *
    FROM unnest($40::bigint[], $41::text[], $42::text[], $43::text[]) AS w (ordinal, namespace, saga_id, name)
),
h AS MATERIALIZED (
    SELECT DISTINCT wanted.ordinal
    FROM wanted, LATERAL (
        SELECT FROM sagad.lock AS l
        WHERE l.resource = wanted.namespace || '/' || wanted.name AND l.saga_id <> wanted.saga_id
        LIMIT 1
    ) AS others
),
classes AS MATERIALIZED (
    SELECT pg_advisory_xact_lock(hashtext('sagad.lock'), c.class)
    FROM (SELECT DISTINCT hashtext(namespace || '/' || name) & 63 AS class FROM wanted ORDER BY class) AS c
)

-- name: locks
-- Takes and queues for what the sagas that are written ask for, and gives back all of those that have ended: their rows
-- are found by the index, and also in the version that a grant has made of them meanwhile, because of `= ANY (ARRAY[])`.
-- `awaited` are those that somebody waits for.
x AS (
    INSERT INTO sagad.lock (namespace, saga_id, name, fencing_token, take_time)
    SELECT wanted.namespace, wanted.saga_id, wanted.name, nextval('sagad.lock_token'), now()
    FROM w JOIN wanted USING (ordinal)
    WHERE (SELECT count(*) FROM classes) >= 0
    RETURNING namespace, saga_id, name, fencing_token
),
q AS (
    INSERT INTO sagad.lock (namespace, saga_id, name)
    SELECT t.namespace, t.saga_id, t.name
    FROM unnest($44::text[], $45::text[], $46::text[]) WITH ORDINALITY AS t (namespace, saga_id, name, place)
    JOIN (SELECT namespace, saga_id FROM w UNION ALL SELECT namespace, saga_id FROM u) AS written
        USING (namespace, saga_id)
    ORDER BY t.place
),
z AS (
    DELETE FROM sagad.lock AS l
    USING u
    WHERE u.ordinal = ANY ($47::bigint[])
        AND l.namespace = ANY (ARRAY[u.namespace]) AND l.saga_id = ANY (ARRAY[u.saga_id])
    RETURNING l.namespace, l.saga_id, l.name, l.resource
),
awaited AS (
    SELECT z.namespace, z.name
    FROM z, LATERAL (
        SELECT FROM sagad.lock AS l
        WHERE l.resource = z.resource AND l.fencing_token IS NULL AND l.saga_id <> z.saga_id
        LIMIT 1
    ) AS others
)

-- name: answer_locks
SELECT
    now() AS time,
    (SELECT array_agg(w.ordinal) FROM w) AS started,
    (SELECT array_agg(u.ordinal) FROM u) AS advanced,
    (SELECT array_agg(h.ordinal) FROM h) AS held_up,
    t.*, a.*
FROM (
    SELECT array_agg(awaited.namespace) AS awaited_namespaces, array_agg(awaited.name) AS awaited_names
    FROM awaited
) AS a, (
    SELECT
        array_agg(x.namespace) AS namespaces,
        array_agg(x.saga_id) AS saga_ids,
        array_agg(x.name) AS names,
        array_agg(x.fencing_token) AS tokens
    FROM x
) AS t
