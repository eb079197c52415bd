-- The statements of PostgresBarrier. {table} is replaced by the barrier's quoted name.

-- name: claim_action
-- $1 idempotency_key, $2 fencing_token, $3 namespace, $4 saga_id, $5 step_id, $6 status and $7 answer of a new row.
-- Waits for a concurrent call with the key; then that call's row comes back, locked, with the newest fencing token.
INSERT INTO {table} AS b (idempotency_key, kind, fencing_token, namespace, saga_id, step_id, status, answer)
VALUES ($1, 1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (idempotency_key, kind) DO UPDATE
   SET fencing_token = greatest(b.fencing_token, excluded.fencing_token), touched_at = now()
RETURNING status, answer, fencing_token;

-- name: claim_actions
-- $1 idempotency_keys, $2 fencing_tokens, $3 namespaces, $4 saga_ids, $5 step_ids: claim_action for each, in the order of
-- keys, so that two batches do not wait for each other.
INSERT INTO {table} AS b (idempotency_key, kind, fencing_token, namespace, saga_id, step_id, status, answer)
SELECT c.idempotency_key, 1, c.fencing_token, c.namespace, c.saga_id, c.step_id, 0, NULL
  FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[])
       AS c (idempotency_key, fencing_token, namespace, saga_id, step_id)
 ORDER BY c.idempotency_key COLLATE "C"
ON CONFLICT (idempotency_key, kind) DO UPDATE
   SET fencing_token = greatest(b.fencing_token, excluded.fencing_token), touched_at = now()
RETURNING idempotency_key, status, answer, fencing_token;

-- name: claim_compensations
-- $1 to $5 as claim_actions, $6 statuses and $7 answers of the actions' rows where there are none, $8 a success without
-- output: claim_compensation for each.
WITH claim AS MATERIALIZED (
    SELECT *
      FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::smallint[], $7::bytea[])
           AS c (idempotency_key, fencing_token, namespace, saga_id, step_id, status, answer)
     ORDER BY c.idempotency_key COLLATE "C"
), action AS (
    INSERT INTO {table} AS b (idempotency_key, kind, fencing_token, namespace, saga_id, step_id, status, answer)
    SELECT idempotency_key, 1, fencing_token, namespace, saga_id, step_id, status, answer FROM claim
    ON CONFLICT (idempotency_key, kind) DO UPDATE
       SET fencing_token = greatest(b.fencing_token, excluded.fencing_token), touched_at = now(),
           status = CASE b.status WHEN 3 THEN 4 ELSE b.status END,
           completion_token = CASE b.status WHEN 3 THEN NULL ELSE b.completion_token END
    RETURNING idempotency_key, status, answer, fencing_token
), compensation AS (
    INSERT INTO {table} AS b (idempotency_key, kind, fencing_token, namespace, saga_id, step_id, status, answer)
    SELECT claim.idempotency_key, 2, claim.fencing_token, claim.namespace, claim.saga_id, claim.step_id,
           CASE action.status WHEN 2 THEN 1 ELSE 0 END, CASE action.status WHEN 2 THEN $8::bytea END
      FROM claim JOIN action USING (idempotency_key)
     ORDER BY claim.idempotency_key COLLATE "C"
    ON CONFLICT (idempotency_key, kind) DO UPDATE
       SET fencing_token = excluded.fencing_token, touched_at = now(),
           status = CASE b.status WHEN 2 THEN 0 ELSE b.status END
    RETURNING idempotency_key, status, answer
)
SELECT idempotency_key, compensation.status, compensation.answer, action.fencing_token,
       action.status AS action_status, action.answer AS action_answer
  FROM action JOIN compensation USING (idempotency_key);

-- name: settle_many
-- $1 kind, $2 idempotency_keys, $3 statuses, $4 answers, $5 completion_tokens: settle for each.
UPDATE {table} AS b
   SET status = s.status, answer = s.answer, completion_token = s.completion_token, touched_at = now()
  FROM unnest($2::text[], $3::smallint[], $4::bytea[], $5::text[])
       AS s (idempotency_key, status, answer, completion_token)
 WHERE b.idempotency_key = s.idempotency_key AND b.kind = $1;

-- name: claim_compensation
-- $1 idempotency_key, $2 fencing_token, $3 namespace, $4 saga_id, $5 step_id, $6 status and $7 answer of the action's row if
-- there is none, $8 a success without output.
-- The action's row comes first, so that calls of both kinds lock in the same order. Where the action was refused, the
-- compensation has succeeded already.
WITH action AS (
    INSERT INTO {table} AS b (idempotency_key, kind, fencing_token, namespace, saga_id, step_id, status, answer)
    VALUES ($1, 1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (idempotency_key, kind) DO UPDATE
       SET fencing_token = greatest(b.fencing_token, excluded.fencing_token), touched_at = now(),
           status = CASE b.status WHEN 3 THEN 4 ELSE b.status END,
           completion_token = CASE b.status WHEN 3 THEN NULL ELSE b.completion_token END
    RETURNING status, answer, fencing_token
), compensation AS (
    INSERT INTO {table} AS b (idempotency_key, kind, fencing_token, namespace, saga_id, step_id, status, answer)
    SELECT $1, 2, $2, $3, $4, $5, CASE action.status WHEN 2 THEN 1 ELSE 0 END, CASE action.status WHEN 2 THEN $8::bytea END
      FROM action
    ON CONFLICT (idempotency_key, kind) DO UPDATE
       SET fencing_token = excluded.fencing_token, touched_at = now(),
           status = CASE b.status WHEN 2 THEN 0 ELSE b.status END
    RETURNING status, answer
)
SELECT compensation.status, compensation.answer, action.fencing_token,
       action.status AS action_status, action.answer AS action_answer
  FROM action, compensation;

-- name: settle
-- $1 idempotency_key, $2 kind, $3 status, $4 answer, $5 completion_token. Fails in a transaction that has failed: so a handler
-- that swallows a database error cannot turn the commit into a silent rollback.
UPDATE {table} SET status = $3, answer = $4, completion_token = $5, touched_at = now()
 WHERE idempotency_key = $1 AND kind = $2;

-- name: lock
-- $1 idempotency_key, $2 kind.
SELECT idempotency_key, kind, status, answer, namespace, saga_id, step_id, completion_token, created_at
  FROM {table} WHERE idempotency_key = $1 AND kind = $2 FOR UPDATE;

-- name: pending
-- $1 limit.
SELECT idempotency_key, kind, status, answer, namespace, saga_id, step_id, completion_token, created_at
  FROM {table} WHERE completion_token IS NOT NULL AND status = 3 ORDER BY created_at LIMIT $1;

-- name: undelivered
-- $1 limit.
SELECT idempotency_key, kind, status, answer, namespace, saga_id, step_id, completion_token, created_at
  FROM {table} WHERE completion_token IS NOT NULL AND status IN (1, 2) ORDER BY created_at LIMIT $1;

-- name: delivered
-- $1 idempotency_key, $2 kind.
UPDATE {table} SET completion_token = NULL
 WHERE idempotency_key = $1 AND kind = $2 AND status IN (1, 2);

-- name: prune
-- $1 age, $2 limit. Both rows of a key go together; a row that was touched while the DELETE waited for it stays.
WITH old AS (
    SELECT a.idempotency_key FROM {table} a
     WHERE a.kind = 1 AND a.touched_at < now() - $1::interval AND NOT EXISTS (
           SELECT FROM {table} b WHERE b.idempotency_key = a.idempotency_key
              AND (b.touched_at >= now() - $1::interval OR b.completion_token IS NOT NULL))
     LIMIT $2
)
DELETE FROM {table} b USING old
 WHERE b.idempotency_key = old.idempotency_key AND b.touched_at < now() - $1::interval;
