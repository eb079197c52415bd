-- The schema that the migrations give. Made from a database; a test compares the two.

CREATE TABLE sagad.audit (
    audit_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    "time" timestamp with time zone NOT NULL DEFAULT now(),
    namespace text COLLATE "C" NOT NULL,
    kind smallint NOT NULL,
    actor text NOT NULL,
    subject text NOT NULL,
    reason text NOT NULL,
    details text NOT NULL,
    CONSTRAINT audit_pkey PRIMARY KEY (audit_id)
);
COMMENT ON COLUMN sagad.audit.namespace IS 'empty for what concerns the server as a whole';
COMMENT ON COLUMN sagad.audit.kind IS 'number of sagad.v1.AuditKind';
COMMENT ON COLUMN sagad.audit.details IS 'a JSON object';

CREATE TABLE sagad.definition (
    namespace text COLLATE "C" NOT NULL,
    definition_id text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    active boolean NOT NULL,
    step_count integer NOT NULL,
    create_time timestamp with time zone NOT NULL DEFAULT now(),
    body bytea NOT NULL,
    CONSTRAINT definition_pkey PRIMARY KEY (namespace, definition_id, version)
);

CREATE TABLE sagad.deleted_definition (
    namespace text COLLATE "C" NOT NULL,
    definition_id text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    CONSTRAINT deleted_definition_pkey PRIMARY KEY (namespace, definition_id, version)
);

CREATE TABLE sagad.event (
    batch_id uuid NOT NULL,
    revision bigint NOT NULL,
    "position" bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    "time" timestamp with time zone NOT NULL,
    cause smallint NOT NULL,
    relay_partition smallint NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    saga_id text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    payload bytea,
    category smallint,
    parking_mask integer,
    CONSTRAINT event_pkey PRIMARY KEY (namespace, saga_id, revision)
);
CREATE INDEX event_relay ON sagad.event USING btree (relay_partition, xid, "position");

CREATE TABLE sagad.journal_purge (
    namespace text COLLATE "C" NOT NULL,
    xid xid8 NOT NULL,
    "position" bigint NOT NULL,
    CONSTRAINT journal_purge_pkey PRIMARY KEY (namespace)
);
CREATE INDEX journal_purge_order ON sagad.journal_purge USING btree (xid, "position");

CREATE TABLE sagad.lock (
    namespace text COLLATE "C" NOT NULL,
    saga_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    resource text COLLATE "C" NOT NULL DEFAULT ((namespace || '/'::text) || name),
    ticket bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    fencing_token bigint,
    request_time timestamp with time zone NOT NULL DEFAULT now(),
    take_time timestamp with time zone,
    CONSTRAINT lock_pkey PRIMARY KEY (namespace, saga_id, ticket)
) WITH (fillfactor=70);
CREATE INDEX lock_queue ON sagad.lock USING btree (resource, ticket);
CREATE UNIQUE INDEX lock_holder ON sagad.lock USING btree (resource) WHERE (fencing_token IS NOT NULL);
COMMENT ON COLUMN sagad.lock.ticket IS 'the place in the queue';
COMMENT ON COLUMN sagad.lock.fencing_token IS 'null while it waits';

CREATE TABLE sagad.mirror_lane (
    topic text COLLATE "C" NOT NULL,
    lane smallint NOT NULL,
    owner uuid,
    start_id uuid NOT NULL DEFAULT gen_random_uuid(),
    start smallint NOT NULL DEFAULT 0,
    begun boolean NOT NULL DEFAULT false,
    xid xid8 NOT NULL DEFAULT '0'::xid8,
    "position" bigint NOT NULL DEFAULT 0,
    fault text NOT NULL DEFAULT ''::text,
    CONSTRAINT mirror_lane_pkey PRIMARY KEY (topic, lane)
);
COMMENT ON COLUMN sagad.mirror_lane.start_id IS 'made anew each time that an operator says where to go on';
COMMENT ON COLUMN sagad.mirror_lane.start IS '0 the first; else number of sagad.v1.MirrorStart, as an operator said';
COMMENT ON COLUMN sagad.mirror_lane.begun IS 'Kafka has a place of this start';
COMMENT ON COLUMN sagad.mirror_lane.fault IS 'why the lane stands still, until an operator says where to go on';

CREATE TABLE sagad.mirror_relay (
    relay_id uuid NOT NULL,
    topic text COLLATE "C" NOT NULL,
    relay_name text NOT NULL,
    lease bigint NOT NULL DEFAULT 0,
    CONSTRAINT mirror_relay_pkey PRIMARY KEY (relay_id)
);
COMMENT ON COLUMN sagad.mirror_relay.lease IS 'grows while the process lives';

CREATE TABLE sagad.nodes (
    instance_id uuid NOT NULL,
    node_name text NOT NULL,
    incarnation bigint NOT NULL,
    state smallint NOT NULL DEFAULT 1,
    lease bigint NOT NULL DEFAULT 0,
    start_time timestamp with time zone NOT NULL DEFAULT now(),
    loading_namespaces text[] NOT NULL DEFAULT '{}'::text[],
    loading_saga_ids text[] NOT NULL DEFAULT '{}'::text[],
    address text NOT NULL DEFAULT ''::text,
    CONSTRAINT nodes_node_name_incarnation_key UNIQUE (node_name, incarnation),
    CONSTRAINT nodes_pkey PRIMARY KEY (instance_id)
);
CREATE INDEX nodes_live ON sagad.nodes USING btree (node_name) WHERE (state = 1);
COMMENT ON COLUMN sagad.nodes.lease IS 'grows while the node lives';
COMMENT ON COLUMN sagad.nodes.loading_saga_ids IS 'what is being loaded or decided just now, with loading_namespaces';
COMMENT ON COLUMN sagad.nodes.address IS 'where other nodes reach this one; empty until it is announced';

CREATE TABLE sagad.saga (
    uid uuid NOT NULL,
    revision bigint NOT NULL,
    epoch bigint NOT NULL,
    create_time timestamp with time zone NOT NULL,
    update_time timestamp with time zone NOT NULL,
    parking_mask integer NOT NULL,
    state smallint NOT NULL,
    category smallint NOT NULL,
    crashes smallint NOT NULL DEFAULT 0,
    owner uuid,
    wake_at timestamp with time zone,
    end_time timestamp with time zone,
    park_time timestamp with time zone,
    purge_time timestamp with time zone,
    namespace text COLLATE "C" NOT NULL,
    saga_id text COLLATE "C" NOT NULL,
    definition_id text COLLATE "C",
    version text COLLATE "C",
    incident_id text NOT NULL DEFAULT ''::text,
    labels jsonb NOT NULL,
    request_hash bytea NOT NULL,
    body bytea NOT NULL,
    CONSTRAINT saga_pkey PRIMARY KEY (namespace, saga_id)
) WITH (autovacuum_analyze_scale_factor=0.05, autovacuum_vacuum_scale_factor=0.05, fillfactor=50);
CREATE INDEX saga_definition ON sagad.saga USING btree (namespace, definition_id, version, state, create_time DESC, saga_id) WHERE (definition_id IS NOT NULL);
CREATE INDEX saga_ended ON sagad.saga USING btree (end_time) WHERE ((end_time IS NOT NULL) AND (purge_time IS NULL));
CREATE INDEX saga_failed ON sagad.saga USING btree (namespace, category, state, create_time DESC, saga_id) WHERE ((category <> 0) AND (purge_time IS NULL));
CREATE INDEX saga_labels ON sagad.saga USING gin (labels jsonb_path_ops) WITH (fastupdate=off) WHERE (labels <> '{}'::jsonb);
CREATE INDEX saga_listed ON sagad.saga USING btree (namespace, state, create_time DESC, saga_id) WHERE (purge_time IS NULL);
CREATE INDEX saga_moving ON sagad.saga USING btree (owner, wake_at, state) WHERE (state = ANY (ARRAY[1, 2]));
CREATE INDEX saga_parked ON sagad.saga USING btree (namespace, create_time DESC, saga_id) WHERE ((state = 3) OR (parking_mask <> 0));
CREATE INDEX saga_purged ON sagad.saga USING btree (purge_time) WHERE (purge_time IS NOT NULL);
COMMENT ON COLUMN sagad.saga.wake_at IS 'of a saga without owner: not to be claimed before';
COMMENT ON COLUMN sagad.saga.park_time IS 'when it was parked as a whole, if it is';
COMMENT ON COLUMN sagad.saga.definition_id IS 'null in a tombstone, as version is';

CREATE TABLE sagad.schema_migration (
    version integer NOT NULL,
    name text NOT NULL,
    apply_time timestamp with time zone NOT NULL DEFAULT now(),
    CONSTRAINT schema_migration_pkey PRIMARY KEY (version)
);

CREATE TABLE sagad.secret (
    name text NOT NULL,
    value bytea NOT NULL,
    CONSTRAINT secret_pkey PRIMARY KEY (name)
);
