-- name: lock
-- One creation at a time, so that the bounds hold.
SELECT pg_advisory_xact_lock($1)

-- name: get
SELECT * FROM sagad.definition
WHERE namespace = $1 AND definition_id = $2 AND version = $3

-- name: list
SELECT * FROM sagad.definition
WHERE namespace = $1 AND ($2 = '' OR definition_id = $2)

-- name: count
SELECT count(*) AS definitions, coalesce(sum(step_count), 0)::bigint AS steps
FROM sagad.definition

-- name: create
INSERT INTO sagad.definition (namespace, definition_id, version, active, step_count, body)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING *

-- name: set_active
UPDATE sagad.definition
SET active = $4
WHERE namespace = $1 AND definition_id = $2 AND version = $3
RETURNING *

-- name: lock_for_delete
-- Waits for those who start sagas of it, and makes later ones wait until the deletion is decided.
SELECT 1 FROM sagad.definition
WHERE namespace = $1 AND definition_id = $2 AND version = $3
FOR UPDATE

-- name: in_use
-- Another statement than the lock's: only a later snapshot shows what was started while the lock was awaited.
SELECT EXISTS (
    SELECT FROM sagad.saga
    WHERE namespace = $1 AND definition_id = $2 AND version = $3
)

-- name: delete
WITH gone AS (
    DELETE FROM sagad.definition
    WHERE namespace = $1 AND definition_id = $2 AND version = $3
    RETURNING *
)
INSERT INTO sagad.deleted_definition (namespace, definition_id, version, body)
SELECT namespace, definition_id, version, body FROM gone
ON CONFLICT DO NOTHING

-- name: said_otherwise
-- Whether a version of this name was deleted that had another body.
SELECT EXISTS (
    SELECT FROM sagad.deleted_definition
    WHERE namespace = $1 AND definition_id = $2 AND version = $3 AND body <> $4
)
