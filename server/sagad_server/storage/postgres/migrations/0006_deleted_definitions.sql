-- What a version has said once, it says for ever, also after it was deleted: nodes keep versions compiled.
CREATE TABLE sagad.deleted_definition (
    namespace text COLLATE "C" NOT NULL,
    definition_id text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (namespace, definition_id, version)
);
