-- The first schema. Times are those of this database; nobody compares them with another clock.

-- Definition versions: immutable but for `active`, and kept as long as a saga's row names them.
CREATE TABLE sagad.definition (
    namespace text COLLATE "C" NOT NULL,
    definition_id text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    active boolean NOT NULL,
    step_count integer NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    body bytea NOT NULL,
    PRIMARY KEY (namespace, definition_id, version)
);

-- A saga's control state, written with every transition: room is left on each page for the next version of a row, and no
-- index below holds a column that an ordinary transition changes (HOT updates).
CREATE TABLE sagad.saga (
    uid uuid NOT NULL,
    revision bigint NOT NULL,
    epoch bigint NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    parking_mask integer NOT NULL,
    state smallint NOT NULL,
    category smallint NOT NULL,
    crashes smallint NOT NULL DEFAULT 0,
    owner uuid,
    wake_at timestamptz,
    end_time timestamptz,
    park_time timestamptz,
    purge_time timestamptz,
    namespace text COLLATE "C" NOT NULL,
    saga_id text COLLATE "C" NOT NULL,
    definition_id text COLLATE "C",
    version text COLLATE "C",
    incident_id text NOT NULL DEFAULT '',
    labels jsonb NOT NULL,
    request_hash bytea NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (namespace, saga_id)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);

COMMENT ON COLUMN sagad.saga.wake_at IS 'of a saga without owner: not to be claimed before';
COMMENT ON COLUMN sagad.saga.park_time IS 'when it was parked as a whole, if it is';
COMMENT ON COLUMN sagad.saga.definition_id IS 'null in a tombstone, as version is';

-- RUNNING and COMPENSATING: who drives them, and which are due.
CREATE INDEX saga_moving ON sagad.saga (owner, wake_at, state) WHERE state IN (1, 2);
-- Lists.
CREATE INDEX saga_listed ON sagad.saga (namespace, create_time DESC, saga_id) WHERE purge_time IS NULL;
-- PARKED, or with a branch that is.
CREATE INDEX saga_parked ON sagad.saga (namespace, create_time DESC, saga_id) WHERE state = 3 OR parking_mask <> 0;
-- What may be purged, and what may be forgotten.
CREATE INDEX saga_ended ON sagad.saga (end_time) WHERE end_time IS NOT NULL AND purge_time IS NULL;
CREATE INDEX saga_purged ON sagad.saga (purge_time) WHERE purge_time IS NOT NULL;
-- Whether a definition version is in use.
CREATE INDEX saga_definition ON sagad.saga (namespace, definition_id, version) WHERE definition_id IS NOT NULL;
CREATE INDEX saga_labels ON sagad.saga USING gin (labels jsonb_path_ops) WITH (fastupdate = off) WHERE labels <> '{}';

-- The journal: one row for each transition. (xid, position) below pg_snapshot_xmin is the only order that skips nothing;
-- relay_partition is the first 8 bytes of SHA-256 over namespace, 0x00 and saga_id, modulo 64.
CREATE TABLE sagad.event (
    batch_id uuid NOT NULL,
    revision bigint NOT NULL,
    position bigint GENERATED ALWAYS AS IDENTITY (CACHE 256),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    time timestamptz NOT NULL,
    cause smallint NOT NULL,
    relay_partition smallint NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    saga_id text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    payload bytea,
    PRIMARY KEY (namespace, saga_id, revision)
);

CREATE INDEX event_relay ON sagad.event (relay_partition, xid, position);

-- Every start of a node. A node that finds itself not LIVE (1) has been replaced.
CREATE TABLE sagad.nodes (
    instance_id uuid PRIMARY KEY,
    node_name text NOT NULL,
    incarnation bigint NOT NULL,
    state smallint NOT NULL DEFAULT 1,
    lease bigint NOT NULL DEFAULT 0,
    start_time timestamptz NOT NULL DEFAULT now(),
    loading_namespaces text[] NOT NULL DEFAULT '{}',
    loading_saga_ids text[] NOT NULL DEFAULT '{}',
    UNIQUE (node_name, incarnation)
);

COMMENT ON COLUMN sagad.nodes.lease IS 'grows while the node lives';
COMMENT ON COLUMN sagad.nodes.loading_saga_ids IS 'what is being loaded or decided just now, with loading_namespaces';

-- Random keys, made once.
CREATE TABLE sagad.secret (
    name text PRIMARY KEY,
    value bytea NOT NULL
);
