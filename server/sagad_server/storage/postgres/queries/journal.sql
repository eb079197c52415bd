-- Only events of transactions below xmin are read: of those, none is still to come. Each of the 64 relay partitions is a
-- range of the index event_relay, in the order that is wanted; an index in that order alone would cost every commit.

-- name: history
-- Transactions that a fail-over or a restored copy has lost are given their ids anew, in another timeline.
(SELECT system_identifier FROM pg_control_system())
    || '/' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)

-- name: end
-- The last event that can be read, there or purged.
WITH last AS (
    SELECT e.xid, e.position
    FROM generate_series(0, 63) AS p (relay_partition),
    LATERAL (
        SELECT e.xid, e.position FROM sagad.event AS e
        WHERE e.relay_partition = p.relay_partition AND e.xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY e.xid DESC, e.position DESC LIMIT 1
    ) AS e
    UNION ALL
    (SELECT xid, position FROM sagad.journal_purge ORDER BY xid DESC, position DESC LIMIT 1)
    UNION ALL
    SELECT '0', 0
)
SELECT xid, position, {history} AS history FROM last ORDER BY xid DESC, position DESC LIMIT 1

-- name: read
-- A page behind ($1, $2), with a head that is there even if no event is. The next $3 of each partition are looked at.
-- Where a partition may have more of them, all that lies behind its last one waits for the next page.
WITH head AS MATERIALIZED (
    SELECT {history} AS history
),
seen AS MATERIALIZED (
    SELECT e.*
    FROM generate_series(0, 63) AS p (relay_partition),
    LATERAL (
        SELECT e.ctid AS place, e.xid, e.position, row_number() OVER (ORDER BY e.xid, e.position) AS number
        FROM sagad.event AS e
        WHERE e.relay_partition = p.relay_partition
            AND (e.xid, e.position) > ($1, $2) AND e.xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY e.xid, e.position LIMIT $3
    ) AS e
),
cut AS MATERIALIZED (
    SELECT xid, position FROM seen WHERE number = $3 ORDER BY xid, position LIMIT 1
),
page AS MATERIALIZED (
    SELECT place FROM seen
    WHERE NOT EXISTS (SELECT FROM cut WHERE (cut.xid, cut.position) < (seen.xid, seen.position))
)
SELECT
    head.history,
    head.history = $4 OR $1 = '0' OR EXISTS (
        SELECT FROM sagad.event AS e
        WHERE e.relay_partition = ANY (ARRAY(SELECT generate_series(0, 63))) AND e.xid = $1 AND e.position = $2
    ) AS known,
    EXISTS (SELECT FROM cut) AS more,
    ARRAY(SELECT namespace FROM sagad.journal_purge WHERE (xid, position) > ($1, $2)) AS purged,
    e.*
FROM head
LEFT JOIN (
    SELECT
        e.xid, e.position, e.namespace, e.saga_id, e.revision, e.cause, e.time, e.body, e.category, e.parking_mask,
        s.definition_id, s.version, s.labels, s.create_time, s.end_time
    FROM page,
    LATERAL (SELECT * FROM sagad.event WHERE ctid = page.place OFFSET 0) AS e,
    LATERAL (SELECT * FROM sagad.saga WHERE namespace = e.namespace AND saga_id = e.saga_id OFFSET 0) AS s
) AS e ON true
ORDER BY e.xid, e.position
