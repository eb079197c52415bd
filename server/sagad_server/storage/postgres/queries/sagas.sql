-- name: claim
-- Takes over sagas that move and do not sleep, and that no LIVE node owns. Owners are found by hopping through the index
-- saga_moving, so that the sagas of the living cost nothing; ORDER BY makes the planner use it. Only rows that nobody is
-- writing.
WITH RECURSIVE owners (owner) AS (
    (SELECT owner FROM sagad.saga WHERE state IN (1, 2) AND owner IS NOT NULL ORDER BY owner LIMIT 1)
    UNION ALL
    SELECT (
        SELECT s.owner FROM sagad.saga AS s
        WHERE s.state IN (1, 2) AND s.owner > o.owner
        ORDER BY s.owner LIMIT 1
    )
    FROM owners AS o
    WHERE o.owner IS NOT NULL
),
dead AS MATERIALIZED (
    SELECT owner FROM owners
    WHERE owner IS NOT NULL
        AND NOT EXISTS (SELECT FROM sagad.nodes WHERE instance_id = owner AND state = 1)
),
excluded AS MATERIALIZED (
    SELECT * FROM unnest($3::text[], $4::text[])
),
picked AS MATERIALIZED (
    SELECT * FROM (
        SELECT l.ctid FROM dead AS d, LATERAL (
            SELECT s.ctid FROM sagad.saga AS s
            WHERE s.state IN (1, 2) AND s.owner = d.owner AND (s.namespace, s.saga_id) NOT IN (TABLE excluded)
            ORDER BY s.owner, s.wake_at LIMIT $2 FOR UPDATE SKIP LOCKED
        ) AS l
        LIMIT $2
    ) AS of_the_dead
    UNION ALL
    SELECT * FROM (
        SELECT ctid FROM sagad.saga
        WHERE state IN (1, 2) AND owner IS NULL AND wake_at IS NULL AND (namespace, saga_id) NOT IN (TABLE excluded)
        ORDER BY owner, wake_at LIMIT $2 FOR UPDATE SKIP LOCKED
    ) AS released
    LIMIT $2
)
UPDATE sagad.saga
SET epoch = epoch + 1, owner = $1, wake_at = NULL
WHERE ctid = ANY (ARRAY(SELECT ctid FROM picked))
RETURNING namespace, saga_id

-- name: wake
-- Takes over sagas that have slept long enough. Those that sleep on are not looked at.
UPDATE sagad.saga
SET epoch = epoch + 1, owner = $1, wake_at = NULL
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM sagad.saga
    WHERE state IN (1, 2) AND owner IS NULL AND wake_at <= now()
    ORDER BY owner, wake_at LIMIT $2 FOR UPDATE SKIP LOCKED
))
RETURNING namespace, saga_id

-- name: claim_one
UPDATE sagad.saga
SET epoch = epoch + 1, owner = $1, wake_at = NULL
WHERE namespace = $2 AND saga_id = $3 AND state IN (1, 2)
    AND NOT EXISTS (SELECT FROM sagad.nodes WHERE instance_id = owner AND nodes.state = 1)
RETURNING namespace, saga_id

-- name: hand_back
UPDATE sagad.saga AS s
SET owner = NULL, wake_at = NULL
FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[]) AS k (namespace, saga_id, epoch, revision)
WHERE s.namespace = k.namespace AND s.saga_id = k.saga_id AND s.epoch = k.epoch AND s.revision = k.revision
    AND s.owner = $1 AND s.state IN (1, 2)
RETURNING s.namespace, s.saga_id

-- name: count_owned
-- Up to 100,000 for each: enough to tell who has more.
SELECT n.instance_id AS owner, l.count
FROM sagad.nodes AS n, LATERAL (
    SELECT count(*) AS count FROM (
        SELECT FROM sagad.saga AS s WHERE s.state IN (1, 2) AND s.owner = n.instance_id LIMIT 100000
    ) AS owned
) AS l
WHERE n.state = 1

-- name: load
-- Rows with their journals, in columns: one snapshot, one row for each saga. Of a journal of more than $3 events only
-- what holds data.
SELECT s.*, now() AS now, j.*, h.*
FROM unnest($1::text[], $2::text[]) AS k (namespace, saga_id),
LATERAL (
    SELECT * FROM sagad.saga WHERE namespace = k.namespace AND saga_id = k.saga_id OFFSET 0
) AS s,
LATERAL (
    SELECT
        array_agg(e.revision) AS revisions,
        array_agg(e.cause) AS causes,
        array_agg(e.time) AS times,
        array_agg(e.body) AS bodies,
        array_agg(e.payload) AS payloads
    FROM (
        SELECT * FROM sagad.event
        WHERE namespace = k.namespace AND saga_id = k.saga_id AND (s.revision <= $3 OR payload IS NOT NULL)
        ORDER BY revision
    ) AS e
) AS j,
LATERAL (
    SELECT array_agg(name) AS lock_names, array_agg(fencing_token) AS lock_tokens FROM sagad.lock
    WHERE namespace = k.namespace AND saga_id = k.saga_id AND fencing_token IS NOT NULL
) AS h

-- name: load_events
SELECT e.*
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS k (namespace, saga_id, revision),
LATERAL (
    SELECT * FROM sagad.event
    WHERE namespace = k.namespace AND saga_id = k.saga_id AND revision = k.revision OFFSET 0
) AS e

-- name: count_crash
UPDATE sagad.saga
SET crashes = least(crashes + 1, 32767)
WHERE namespace = $1 AND saga_id = $2
RETURNING crashes

-- name: park
WITH parked AS (
    UPDATE sagad.saga
    SET state = 3,
        revision = revision + 1,
        epoch = epoch + 1,
        owner = NULL,
        wake_at = NULL,
        parking_mask = parking_mask | (1 << $5),
        incident_id = $6,
        park_time = now(),
        update_time = now()
    WHERE namespace = $1 AND saga_id = $2 AND revision = $3 AND epoch = $4 AND state IN (1, 2)
    RETURNING revision, category, parking_mask
)
INSERT INTO sagad.event (
    namespace, saga_id, revision, batch_id, cause, time, relay_partition, body, category, parking_mask
)
SELECT $1, $2, revision, gen_random_uuid(), $7, now(), $8, $9, category, parking_mask
FROM parked
RETURNING 1

-- name: get_row
SELECT * FROM sagad.saga
WHERE namespace = $1 AND saga_id = $2

-- name: moved
SELECT k.namespace, k.saga_id, s.revision
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS k (namespace, saga_id, seen)
LEFT JOIN LATERAL (
    SELECT revision FROM sagad.saga WHERE namespace = k.namespace AND saga_id = k.saga_id OFFSET 0
) AS s ON true
WHERE s.revision > k.seen OR s.revision IS NULL

-- name: list
-- {newest} is one of the next two statements; selection.py fills in what is in braces.
SELECT * FROM (
{newest}
) AS s
ORDER BY create_time DESC, saga_id
LIMIT {limit}

-- name: newest
-- Of each range, the first that are selected and, where it was not followed further, the last that was looked at.
SELECT s.* FROM {source}LATERAL (
    SELECT * FROM (
        SELECT *, row_number() OVER (ORDER BY create_time DESC, saga_id) AS place FROM sagad.saga
        WHERE {range}
        ORDER BY create_time DESC, saga_id
        LIMIT {most}
    ) AS scanned
    WHERE place = {most} OR ({where})
    LIMIT {limit}
) AS s

-- name: few
-- The planner is not to look for them elsewhere.
SELECT *, 0 AS place FROM (SELECT * FROM sagad.saga WHERE {few} OFFSET 0) AS few
WHERE {where}

-- name: estimate
EXPLAIN (FORMAT JSON) SELECT FROM sagad.saga WHERE {few}

-- name: count_few
SELECT count(*) FROM (SELECT FROM sagad.saga WHERE {few} LIMIT {limit}) AS few

-- name: versions
-- A definition version lives as long as a saga names it.
SELECT definition_id, version FROM sagad.definition
WHERE namespace = $1 AND $2 IN ('', definition_id) AND $3 IN ('', version)

-- name: stats
-- One row for each state, and one without for all of them. Of those that have ended, what is not newer than the end
-- of a range that was not followed further, or than the first that is too many, is left out: there may be more of it.
WITH newest AS MATERIALIZED (
    SELECT state, create_time, end_time, place FROM (
{newest}
    ) AS s
    ORDER BY create_time DESC, saga_id
    LIMIT {limit} + 1
),
stop AS MATERIALIZED (
    SELECT max(time) + interval '1 us' AS time FROM (
        SELECT create_time FROM newest WHERE place = {most}
        UNION ALL
        SELECT min(create_time) FROM newest HAVING count(*) > {limit}
    ) AS uncounted (time)
)
SELECT
    state,
    count(*) AS count,
    percentile_disc(ARRAY[0.5, 0.9, 0.99]) WITHIN GROUP (ORDER BY end_time - create_time) AS durations,
    min(create_time) FILTER (WHERE end_time IS NULL) AS oldest,
    (SELECT time FROM stop) AS ended_since
FROM (
    SELECT state, create_time, end_time FROM sagad.saga WHERE {where} AND state IN (1, 2, 3)
    UNION ALL
    SELECT n.state, n.create_time, n.end_time FROM newest AS n, stop
    WHERE n.create_time >= coalesce(stop.time, '-infinity')
) AS s
GROUP BY GROUPING SETS ((state), ())

-- name: list_events
SELECT * FROM sagad.event
WHERE namespace = $1 AND saga_id = $2 AND revision > $3
ORDER BY revision
LIMIT $4

-- name: count_by_state
-- Each half reads one partial index.
SELECT state, count(*) AS count FROM sagad.saga WHERE state IN (1, 2) GROUP BY state
UNION ALL
SELECT state, count(*) FROM sagad.saga WHERE state = 3 GROUP BY state

-- name: stranded
-- Those that have not changed for longest: what nobody drives is among them.
SELECT namespace, saga_id FROM sagad.saga
WHERE owner = $1 AND state IN (1, 2)
ORDER BY update_time
LIMIT 1000

-- name: await_rows
-- Waits until whatever is under way on these rows has ended.
SELECT 1
FROM unnest($1::text[], $2::text[]) AS k (namespace, saga_id),
LATERAL (
    SELECT FROM sagad.saga AS s WHERE s.namespace = k.namespace AND s.saga_id = k.saga_id FOR UPDATE
) AS s

-- name: row_states
SELECT
    k.namespace, k.saga_id, s.uid, s.epoch, s.revision, e.batch_id, coalesce(e.time, s.update_time) AS time, h.*
FROM unnest($1::text[], $2::text[]) AS k (namespace, saga_id),
LATERAL (
    SELECT * FROM sagad.saga AS s WHERE s.namespace = k.namespace AND s.saga_id = k.saga_id OFFSET 0
) AS s
CROSS JOIN LATERAL (
    SELECT array_agg(name) AS lock_names, array_agg(fencing_token) AS lock_tokens FROM sagad.lock
    WHERE namespace = k.namespace AND saga_id = k.saga_id AND fencing_token IS NOT NULL
) AS h
LEFT JOIN sagad.event AS e
    ON e.namespace = s.namespace AND e.saga_id = s.saga_id AND e.revision = s.revision

-- name: forget
DELETE FROM sagad.saga
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM sagad.saga
    WHERE purge_time <= now() - $1::interval
    ORDER BY purge_time LIMIT $2 FOR UPDATE SKIP LOCKED
))
RETURNING 1

-- name: held_since
-- Since when mirrors hold back something of every relay partition; null: of one there is nothing that waits.
SELECT CASE WHEN count(held.since) = 64 THEN max(held.since) END AS since
FROM generate_series(0, 63) AS p
LEFT JOIN LATERAL (
    SELECT min(first.time) AS since
    FROM sagad.mirror_lane AS m,
    LATERAL (
        SELECT e.time FROM sagad.event AS e
        WHERE e.relay_partition = p AND (e.xid, e.position) >= (m.xid, m.position)
        ORDER BY e.xid, e.position LIMIT 1
    ) AS first
    WHERE m.lane = p % 8
) AS held ON true

-- name: purgeable
-- Those that ended first, and that nobody is writing. Their last events can be read by those who read the journal, and
-- are behind every mirror. What has ended since held_since is not even looked at: where mirrors stand still it grows long.
SELECT s.ctid, namespace, saga_id, end_time
FROM sagad.saga AS s
LEFT JOIN LATERAL (
    SELECT e.xid, e.position, e.relay_partition FROM sagad.event AS e
    WHERE e.namespace = s.namespace AND e.saga_id = s.saga_id AND e.revision = s.revision OFFSET 0
) AS last ON true
WHERE {where} AND state IN (4, 5, 6) AND end_time <= least(now() - {age}::interval, {held_since})
    AND coalesce(last.xid, '0') < (SELECT pg_snapshot_xmin(pg_current_snapshot()))
    AND NOT EXISTS (
        SELECT FROM sagad.mirror_lane AS m
        WHERE m.lane = last.relay_partition % 8 AND (last.xid, last.position) >= (m.xid, m.position)
    )
ORDER BY end_time
LIMIT {limit}
FOR UPDATE OF s SKIP LOCKED

-- name: count_purgeable
SELECT count(*), max(end_time) AS until FROM ({purgeable}) AS doomed

-- name: purge
-- Makes tombstones of them, and notes how far the journal is gone. One that has changed since the statement began is
-- locked as it is now, which the statement does not see otherwise: it is not stripped, and so its events must stay.
WITH doomed AS MATERIALIZED (
{purgeable}
),
stripped AS (
    UPDATE sagad.saga
    SET purge_time = now(),
        definition_id = NULL,
        version = NULL,
        labels = '{{}}',
        incident_id = '',
        park_time = NULL,
        body = ''
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM doomed))
    RETURNING namespace, saga_id, end_time
),
gone AS (
    DELETE FROM sagad.event
    WHERE ctid = ANY (ARRAY(
        SELECT e.ctid
        FROM stripped AS d,
        LATERAL (
            SELECT ctid FROM sagad.event AS e WHERE e.namespace = d.namespace AND e.saga_id = d.saga_id OFFSET 0
        ) AS e
    ))
    RETURNING namespace, xid, position
),
noted AS (
    INSERT INTO sagad.journal_purge AS j (namespace, xid, position)
    SELECT DISTINCT ON (namespace) namespace, xid, position
    FROM gone
    ORDER BY namespace, xid DESC, position DESC
    ON CONFLICT (namespace) DO UPDATE SET xid = excluded.xid, position = excluded.position
    WHERE (excluded.xid, excluded.position) > (j.xid, j.position)
)
SELECT count(*), max(end_time) AS until FROM stripped
