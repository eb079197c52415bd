CREATE TABLE IF NOT EXISTS shipping.shipment (
    order_id text PRIMARY KEY,
    customer text NOT NULL,
    tracking text NOT NULL
);

CREATE TABLE IF NOT EXISTS shipping.notice (
    order_id text PRIMARY KEY,
    customer text NOT NULL
);
