-- The journal is read as a whole, by filters, and says what of it is gone.

-- What the saga's row says, as this event left it. Null in older rows, and for 0.
ALTER TABLE sagad.event
    ADD COLUMN category smallint,
    ADD COLUMN parking_mask integer;

-- The last event of each namespace that was purged: who has read less far has missed something.
CREATE TABLE sagad.journal_purge (
    namespace text COLLATE "C" PRIMARY KEY,
    xid xid8 NOT NULL,
    position bigint NOT NULL
);

CREATE INDEX journal_purge_order ON sagad.journal_purge (xid, position);
