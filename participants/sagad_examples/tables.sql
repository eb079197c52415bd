-- What each example has, in a schema of its own.
CREATE SCHEMA IF NOT EXISTS {schema};

-- The record of every effect, never changed: checkers judge by it.
CREATE TABLE IF NOT EXISTS {schema}.effect (
    position        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    idempotency_key text        NOT NULL,
    kind            text        NOT NULL CHECK (kind IN ('action', 'compensation')),
    name            text        NOT NULL,
    order_id        text        NOT NULL,
    amount          bigint      NOT NULL,
    time            timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS effect_order ON {schema}.effect (order_id);

-- What was answered with pending, and is to be done by the worker.
CREATE TABLE IF NOT EXISTS {schema}.todo (
    idempotency_key text PRIMARY KEY,
    name            text NOT NULL,
    input           text NOT NULL -- JSON
);
