-- name: lock
-- Waits for a moment (lock_timeout): the connections of a process that was just killed may linger.
SELECT pg_advisory_lock($1)

-- name: try_lock
SELECT pg_try_advisory_lock($1)

-- name: holder
-- Who has the lock.
SELECT
    a.application_name,
    coalesce(host(a.client_addr), 'this machine') AS client,
    date_trunc('second', a.backend_start) AS since,
    current_database() AS database,
    coalesce(host(inet_server_addr()) || ':' || inet_server_port(), 'a local socket') AS server
FROM pg_locks AS l
JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (l.classid::bigint << 32 | l.objid::bigint) = $1

-- name: replace
-- The lock is held: whoever was LIVE is dead. What they were loading is suspect.
UPDATE sagad.nodes
SET state = 2
WHERE state = 1
RETURNING loading_namespaces, loading_saga_ids

-- name: register
INSERT INTO sagad.nodes (instance_id, node_name, incarnation)
SELECT $1, $2, coalesce(max(incarnation), 0) + 1
FROM sagad.nodes
WHERE node_name = $2
RETURNING incarnation

-- name: beat
-- The lease grows while the node lives and is not replaced.
WITH beat AS (
    UPDATE sagad.nodes
    SET lease = lease + 1
    WHERE instance_id = $1 AND state = 1
    RETURNING 1
)
SELECT EXISTS (SELECT FROM beat)

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
