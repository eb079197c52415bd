-- name: grant
-- Gives what nobody holds to who has waited longest, and says who holds what now. Classes: see commit.sql; only those of
-- locks that can be given are locked, since those who wait look again and again, mostly in vain.
WITH asked AS MATERIALIZED (
    SELECT DISTINCT namespace, name FROM unnest($1::text[], $2::text[]) AS a (namespace, name)
),
held AS MATERIALIZED (
    SELECT l.namespace, l.name, l.saga_id, l.fencing_token
    FROM asked AS a, LATERAL (
        SELECT * FROM sagad.lock AS h
        WHERE h.resource = a.namespace || '/' || a.name AND h.fencing_token IS NOT NULL
        OFFSET 0
    ) AS l
),
free AS MATERIALIZED (
    SELECT a.namespace, a.name
    FROM asked AS a, LATERAL (
        SELECT FROM sagad.lock AS t
        WHERE t.resource = a.namespace || '/' || a.name AND t.fencing_token IS NULL
        LIMIT 1
    ) AS waiting
    WHERE (a.namespace, a.name) NOT IN (SELECT namespace, name FROM held)
),
classes AS MATERIALIZED (
    SELECT pg_advisory_xact_lock(hashtext('sagad.lock'), c.class)
    FROM (SELECT DISTINCT hashtext(namespace || '/' || name) & 63 AS class FROM free ORDER BY class) AS c
),
next AS MATERIALIZED (
    SELECT l.namespace, l.name, l.saga_id
    FROM free AS a, LATERAL (
        SELECT * FROM sagad.lock AS t
        WHERE t.resource = a.namespace || '/' || a.name AND t.fencing_token IS NULL
        ORDER BY t.ticket LIMIT 1
        FOR UPDATE SKIP LOCKED
    ) AS l
    WHERE (SELECT count(*) FROM classes) >= 0
),
granted AS (
    UPDATE sagad.lock AS l
    SET fencing_token = nextval('sagad.lock_token'), take_time = now()
    FROM next AS n
    WHERE l.fencing_token IS NULL
        AND l.namespace = ANY (ARRAY[n.namespace]) AND l.saga_id = ANY (ARRAY[n.saga_id]) AND l.name = ANY (ARRAY[n.name])
    RETURNING l.namespace, l.name, l.saga_id, l.fencing_token
)
SELECT namespace, name, saga_id, fencing_token, false AS granted FROM held
UNION ALL
SELECT namespace, name, saga_id, fencing_token, true FROM granted

-- name: of_sagas
-- What sagas hold and wait for, and who else is concerned: looked up once for each resource, since a whole page of sagas
-- may wait for the same one.
WITH own AS MATERIALIZED (
    SELECT l.*
    FROM unnest($1::text[], $2::text[]) AS k (namespace, saga_id)
    CROSS JOIN LATERAL (
        SELECT * FROM sagad.lock WHERE namespace = k.namespace AND saga_id = k.saga_id OFFSET 0
    ) AS l
),
others AS MATERIALIZED (
    SELECT r.resource, coalesce(h.saga_id, '') AS holder, q.waiting, q.waiting_count
    FROM (SELECT DISTINCT resource FROM own) AS r
    LEFT JOIN LATERAL (
        SELECT saga_id FROM sagad.lock
        WHERE resource = r.resource AND fencing_token IS NOT NULL
        OFFSET 0
    ) AS h ON true
    CROSS JOIN LATERAL (
        SELECT (coalesce(array_agg(saga_id ORDER BY ticket), '{}'))[:10] AS waiting, count(*) AS waiting_count
        FROM (
            SELECT saga_id, ticket FROM sagad.lock
            WHERE resource = r.resource AND fencing_token IS NULL
            ORDER BY ticket LIMIT 1000
        ) AS t
    ) AS q
)
SELECT
    own.namespace, own.saga_id, own.name, own.ticket, own.fencing_token, own.request_time, own.take_time,
    others.holder, others.waiting, others.waiting_count
FROM own JOIN others USING (resource)
ORDER BY own.name
