-- Who has done what that is not a transition of one saga.
CREATE TABLE sagad.audit (
    audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    time timestamptz NOT NULL DEFAULT now(),
    namespace text COLLATE "C" NOT NULL,
    kind smallint NOT NULL,
    actor text NOT NULL,
    subject text NOT NULL,
    reason text NOT NULL,
    details text NOT NULL
);

COMMENT ON COLUMN sagad.audit.namespace IS 'empty for what concerns the server as a whole';
COMMENT ON COLUMN sagad.audit.kind IS 'number of sagad.v1.AuditKind';
COMMENT ON COLUMN sagad.audit.details IS 'a JSON object';
