-- name: one_at_a_time
-- Two processes of one name register one after the other.
SELECT pg_advisory_xact_lock(hashtextextended('sagad node ' || $1, 0))

-- name: replace
-- A node of the same name starts: the one before is dead at once. What it was loading is suspect.
UPDATE sagad.nodes
SET state = 2
WHERE state = 1 AND node_name = $1
RETURNING loading_namespaces, loading_saga_ids

-- name: register
INSERT INTO sagad.nodes (instance_id, node_name, incarnation, address)
SELECT $1, $2, coalesce(max(incarnation), 0) + 1, $3
FROM sagad.nodes
WHERE node_name = $2
RETURNING incarnation

-- name: forget_dead
-- The last of each name stays, for its incarnation; so does whoever still owns a moving saga.
DELETE FROM sagad.nodes AS n
WHERE n.state = 2 AND n.start_time < now() - interval '1 day'
    AND EXISTS (SELECT FROM sagad.nodes AS m WHERE m.node_name = n.node_name AND m.incarnation > n.incarnation)
    AND NOT EXISTS (SELECT FROM sagad.saga AS s WHERE s.owner = n.instance_id AND s.state IN (1, 2))

-- name: announce
UPDATE sagad.nodes
SET address = $2
WHERE instance_id = $1

-- name: renew
-- The lease grows while the node lives.
UPDATE sagad.nodes
SET lease = lease + 1
WHERE instance_id = $1 AND state = 1
RETURNING 1

-- name: nodes
SELECT instance_id, node_name, incarnation, state, lease, address, start_time
FROM sagad.nodes AS n
WHERE state = 1
    OR NOT EXISTS (SELECT FROM sagad.nodes AS m WHERE m.node_name = n.node_name AND m.incarnation > n.incarnation)
ORDER BY node_name, incarnation

-- name: declare_dead
UPDATE sagad.nodes
SET state = 2
WHERE instance_id = $1 AND state = 1 AND lease = $2
RETURNING loading_namespaces, loading_saga_ids

-- name: ping
-- Writes, so that a database that takes none is found out. The lease is not touched: it has its own clock.
UPDATE sagad.nodes
SET state = state
WHERE instance_id = $1

-- name: mark_loading
UPDATE sagad.nodes
SET loading_namespaces = $2, loading_saga_ids = $3
WHERE instance_id = $1

-- name: stop
-- A clean end: nothing is suspect.
UPDATE sagad.nodes
SET state = 2, loading_namespaces = '{}', loading_saga_ids = '{}'
WHERE instance_id = $1

-- name: make_secret
INSERT INTO sagad.secret (name, value)
VALUES ($1, $2)
ON CONFLICT DO NOTHING

-- name: get_secret
SELECT value FROM sagad.secret WHERE name = $1

-- name: info
-- Replication: 1 none, 2 asynchronous, 3 synchronous (then commits wait for a standby, connected or not).
SELECT
    current_setting('server_version') AS postgres_version,
    (SELECT max(version) FROM sagad.schema_migration) AS schema_version,
    CASE
        WHEN current_setting('synchronous_standby_names') <> '' THEN 3
        WHEN EXISTS (SELECT FROM pg_stat_replication) THEN 2
        ELSE 1
    END AS replication
