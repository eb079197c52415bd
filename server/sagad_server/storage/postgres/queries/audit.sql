-- name: append
INSERT INTO sagad.audit (namespace, kind, actor, subject, reason, details)
VALUES ($1, $2, $3, $4, $5, $6)

-- name: list
SELECT * FROM sagad.audit
WHERE {where}
ORDER BY audit_id DESC
LIMIT {limit}
