-- Many nodes serve one database: where they reach each other.

ALTER TABLE sagad.nodes ADD COLUMN address text NOT NULL DEFAULT '';

COMMENT ON COLUMN sagad.nodes.address IS 'where other nodes reach this one; empty until it is announced';

-- Who lives is asked often, and the dead grow many.
CREATE INDEX nodes_live ON sagad.nodes (node_name) WHERE state = 1;
