-- name: enter
INSERT INTO sagad.mirror_relay (relay_id, topic, relay_name) VALUES ($1, $2, $3)

-- name: replace
-- A process of the same name starts: the one before is dead.
DELETE FROM sagad.mirror_relay WHERE topic = $1 AND relay_name = $2

-- name: make_lanes
INSERT INTO sagad.mirror_lane (topic, lane)
SELECT $1, generate_series(0, 7)
ON CONFLICT DO NOTHING

-- name: renew
UPDATE sagad.mirror_relay SET lease = lease + 1 WHERE relay_id = $1 RETURNING 1

-- name: relays
SELECT relay_id, relay_name, lease FROM sagad.mirror_relay WHERE topic = $1 ORDER BY relay_id

-- name: bury
-- Only if its lease still stands where it was seen.
DELETE FROM sagad.mirror_relay WHERE relay_id = $1 AND lease = $2

-- name: leave
WITH gone AS (
    DELETE FROM sagad.mirror_relay WHERE relay_id = $1
)
UPDATE sagad.mirror_lane SET owner = NULL WHERE owner = $1

-- name: lanes
SELECT topic, lane, owner, start_id, start, begun, xid, position, fault
FROM sagad.mirror_lane
WHERE topic = $1
ORDER BY lane

-- name: claim
-- Those that no living process owns, up to $3.
UPDATE sagad.mirror_lane
SET owner = $1
WHERE topic = $2 AND lane = ANY (ARRAY(
    SELECT l.lane FROM sagad.mirror_lane AS l
    WHERE l.topic = $2 AND NOT EXISTS (SELECT FROM sagad.mirror_relay AS r WHERE r.relay_id = l.owner)
    ORDER BY l.lane LIMIT $3 FOR UPDATE SKIP LOCKED
))

-- name: release
UPDATE sagad.mirror_lane SET owner = NULL WHERE owner = $1 AND topic = $2 AND lane = ANY ($3::smallint[])

-- name: relayed
-- How far lanes are in Kafka. Never backwards, and never of a start that is over.
UPDATE sagad.mirror_lane AS l
SET begun = true, xid = n.xid, position = n.position
FROM unnest($2::smallint[], $3::uuid[], $4::xid8[], $5::bigint[]) AS n (lane, start_id, xid, position)
WHERE l.topic = $1 AND l.lane = n.lane AND l.start_id = n.start_id
    AND (NOT l.begun OR (n.xid, n.position) > (l.xid, l.position))

-- name: stop
-- Only by its owner: to others the journal may look wrong because a purge has passed the place that they stopped at.
UPDATE sagad.mirror_lane SET fault = $4
WHERE topic = $1 AND lane = $2 AND start_id = $3 AND owner IS NOT DISTINCT FROM $5
RETURNING 1

-- name: resume
-- 1 goes on behind what Kafka has, 2 from the beginning, 3 behind what is there now.
UPDATE sagad.mirror_lane AS l
SET start_id = gen_random_uuid(),
    start = $3::smallint,
    begun = false,
    fault = '',
    xid = CASE $3::smallint WHEN 1 THEN l.xid WHEN 2 THEN '0'::xid8 ELSE e.xid END,
    position = CASE $3::smallint WHEN 1 THEN l.position WHEN 2 THEN 0 ELSE e.position END
FROM generate_series(0, 7) AS n (lane),
LATERAL (
    SELECT e.xid, e.position
    FROM generate_series(n.lane, 63, 8) AS p (relay_partition),
    LATERAL (
        SELECT e.xid, e.position FROM sagad.event AS e
        WHERE e.relay_partition = p.relay_partition AND e.xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY e.xid DESC, e.position DESC LIMIT 1
    ) AS e
    UNION ALL
    SELECT '0', 0
    ORDER BY 1 DESC, 2 DESC LIMIT 1
) AS e
WHERE l.topic = $1 AND l.lane = n.lane AND l.lane = ANY ($2::smallint[])
RETURNING l.lane

-- name: remove
WITH gone AS (
    DELETE FROM sagad.mirror_relay WHERE topic = $1
)
DELETE FROM sagad.mirror_lane WHERE topic = $1 RETURNING lane

-- name: lag
-- Counted up to $2 a lane. The row at the place itself is relayed.
SELECT
    l.topic, l.lane, l.owner, l.start_id, l.start, l.begun, l.xid, l.position, l.fault,
    coalesce(r.relay_name, '') AS relay_name,
    e.events,
    e.oldest_time,
    coalesce(extract(epoch FROM clock_timestamp() - e.oldest_time), 0)::double precision AS seconds
FROM sagad.mirror_lane AS l
LEFT JOIN sagad.mirror_relay AS r ON r.relay_id = l.owner
CROSS JOIN LATERAL (
    SELECT count(*) AS events, (
        SELECT min(f.time)
        FROM generate_series(l.lane::integer, 63, 8) AS p (relay_partition),
        LATERAL (
            SELECT e.time FROM sagad.event AS e
            WHERE e.relay_partition = p.relay_partition AND (e.xid, e.position) > (l.xid, l.position)
            ORDER BY e.xid, e.position LIMIT 1
        ) AS f
    ) AS oldest_time
    FROM (
        SELECT
        FROM generate_series(l.lane::integer, 63, 8) AS p (relay_partition),
        LATERAL (
            SELECT FROM sagad.event AS e
            WHERE e.relay_partition = p.relay_partition AND (e.xid, e.position) > (l.xid, l.position)
            ORDER BY e.xid, e.position LIMIT $2
        ) AS e
        LIMIT $2
    ) AS counted
) AS e
WHERE l.topic = $1 OR $1 = ''
ORDER BY l.topic, l.lane

-- name: oldest_transaction
-- What is older than it can be read. Those of other roles show only to a member of pg_read_all_stats.
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(t.began)), 0)::double precision
FROM (
    SELECT xact_start AS began FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND datname = current_database()
    UNION ALL
    SELECT prepared FROM pg_prepared_xacts WHERE database = current_database()
) AS t

-- name: read
-- What follows the places of some lanes. The next $6 of each relay partition are looked at; where one may have more of
-- them, all that lies behind its last one waits for the next page. So does what is more than $7 bytes, but for the first.
-- Payloads, with $8, and those of first events, for the metadata in them.
WITH lane AS MATERIALIZED (
    SELECT l.*, h.history
    FROM unnest($1::smallint[], $2::xid8[], $3::bigint[], $4::uuid[], $5::text[])
        AS l (lane, xid, position, batch_id, expected),
    (SELECT {history} AS history) AS h
),
seen AS MATERIALIZED (
    SELECT l.lane, e.*
    FROM lane AS l,
    generate_series(l.lane::integer, 63, 8) AS p (relay_partition),
    LATERAL (
        SELECT
            e.ctid AS place, e.xid, e.position, row_number() OVER (ORDER BY e.xid, e.position) AS number,
            octet_length(e.body) + CASE WHEN $8 OR e.revision = 1 THEN coalesce(octet_length(e.payload), 0) ELSE 0 END AS bytes
        FROM sagad.event AS e
        WHERE e.relay_partition = p.relay_partition
            AND (e.xid, e.position) > (l.xid, l.position) AND e.xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY e.xid, e.position LIMIT $6
    ) AS e
),
cut AS MATERIALIZED (
    SELECT DISTINCT ON (lane) lane, xid, position FROM seen WHERE number = $6 ORDER BY lane, xid, position
),
measured AS MATERIALIZED (
    SELECT
        s.lane, s.place, s.xid, s.position,
        sum(s.bytes) OVER w AS bytes, row_number() OVER w AS number
    FROM seen AS s
    LEFT JOIN cut AS c ON c.lane = s.lane
    WHERE c.lane IS NULL OR (s.xid, s.position) <= (c.xid, c.position)
    WINDOW w AS (PARTITION BY s.lane ORDER BY s.xid, s.position)
),
page AS MATERIALIZED (
    SELECT m.lane, m.place FROM measured AS m WHERE m.bytes <= $7 OR m.number = 1
)
SELECT
    l.lane,
    l.history,
    l.batch_id IS NULL OR (l.history = l.expected AND EXISTS (
        SELECT FROM sagad.event AS e
        WHERE e.relay_partition = ANY (ARRAY(SELECT generate_series(l.lane::integer, 63, 8)))
            AND e.xid = l.xid AND e.position = l.position AND e.batch_id = l.batch_id
    )) AS known,
    EXISTS (SELECT FROM cut AS c WHERE c.lane = l.lane)
        OR EXISTS (SELECT FROM measured AS m WHERE m.lane = l.lane AND m.bytes > $7 AND m.number > 1) AS more,
    e.*
FROM lane AS l
LEFT JOIN (
    SELECT
        page.lane AS of_lane, e.relay_partition, e.xid, e.position, e.batch_id, e.namespace, e.saga_id, e.revision,
        e.cause, e.time, e.body, CASE WHEN $8 OR e.revision = 1 THEN e.payload END AS payload, s.uid, s.definition_id, s.version,
        CASE WHEN e.revision = 1 THEN s.labels END AS labels
    FROM page,
    LATERAL (SELECT * FROM sagad.event WHERE ctid = page.place OFFSET 0) AS e,
    LATERAL (SELECT * FROM sagad.saga WHERE namespace = e.namespace AND saga_id = e.saga_id OFFSET 0) AS s
) AS e ON e.of_lane = l.lane
ORDER BY l.lane, e.xid, e.position

-- name: first_payloads
-- What StartSaga brought: metadata among it.
SELECT e.namespace, e.saga_id, e.payload
FROM unnest($1::text[], $2::text[]) AS k (namespace, saga_id),
LATERAL (
    SELECT * FROM sagad.event AS e
    WHERE e.namespace = k.namespace AND e.saga_id = k.saga_id AND e.revision = 1 OFFSET 0
) AS e
