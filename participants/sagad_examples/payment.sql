CREATE TABLE IF NOT EXISTS payment.account (
    customer      text   PRIMARY KEY,
    opening_cents bigint NOT NULL CHECK (opening_cents >= 0),
    balance_cents bigint NOT NULL CHECK (balance_cents >= 0)
);

CREATE TABLE IF NOT EXISTS payment.charge (
    order_id     text   PRIMARY KEY,
    customer     text   NOT NULL REFERENCES payment.account,
    amount_cents bigint NOT NULL CHECK (amount_cents > 0)
);
