CREATE TABLE IF NOT EXISTS inventory.stock (
    sku     text   PRIMARY KEY,
    opening bigint NOT NULL CHECK (opening >= 0),
    on_hand bigint NOT NULL CHECK (on_hand >= 0)
);

CREATE TABLE IF NOT EXISTS inventory.reservation (
    order_id text   PRIMARY KEY,
    sku      text   NOT NULL REFERENCES inventory.stock,
    quantity bigint NOT NULL CHECK (quantity > 0)
);
