-- The mirror of the journal in Kafka: who relays which part of it, and how far each part is.

-- Processes that relay. Who is not here is dead.
CREATE TABLE sagad.mirror_relay (
    relay_id uuid PRIMARY KEY,
    topic text COLLATE "C" NOT NULL,
    relay_name text NOT NULL,
    lease bigint NOT NULL DEFAULT 0
);

COMMENT ON COLUMN sagad.mirror_relay.lease IS 'grows while the process lives';

-- The parts of the journal: lane n has the relay partitions p with p % 8 = n. Kafka has the place up to which a lane is
-- relayed; here is one that is never ahead of it. Nothing behind (xid, position) is purged, and what stands there is not.
CREATE TABLE sagad.mirror_lane (
    topic text COLLATE "C" NOT NULL,
    lane smallint NOT NULL,
    owner uuid,
    start_id uuid NOT NULL DEFAULT gen_random_uuid(),
    start smallint NOT NULL DEFAULT 0,
    begun boolean NOT NULL DEFAULT false,
    xid xid8 NOT NULL DEFAULT '0',
    position bigint NOT NULL DEFAULT 0,
    fault text NOT NULL DEFAULT '',
    PRIMARY KEY (topic, lane)
);

COMMENT ON COLUMN sagad.mirror_lane.start_id IS 'made anew each time that an operator says where to go on';
COMMENT ON COLUMN sagad.mirror_lane.start IS '0 the first; else number of sagad.v1.MirrorStart, as an operator said';
COMMENT ON COLUMN sagad.mirror_lane.begun IS 'Kafka has a place of this start';
COMMENT ON COLUMN sagad.mirror_lane.fault IS 'why the lane stands still, until an operator says where to go on';
