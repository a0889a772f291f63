-- Where operators want to be told of what happens. `events` is a JSON list. The secret signs what is sent, so it is kept as it is.
CREATE TABLE webhooks (
    name       TEXT    PRIMARY KEY NOT NULL,
    url        TEXT    NOT NULL,
    events     TEXT    NOT NULL,
    secret     TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- What is to be told, and what came of it. `next_try_at` is null when there is nothing left to try.
CREATE TABLE webhook_deliveries (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook     TEXT    NOT NULL REFERENCES webhooks (name),
    event       TEXT    NOT NULL,
    body        TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    tried_at    INTEGER,
    status      INTEGER,
    problem     TEXT,
    next_try_at INTEGER
) STRICT;

CREATE INDEX webhook_deliveries_by_webhook ON webhook_deliveries (webhook, id);
CREATE INDEX webhook_deliveries_by_time ON webhook_deliveries (next_try_at, webhook, id);

-- Devices that were told of as lost, so that nobody is told twice.
CREATE TABLE lost_devices (
    device TEXT    PRIMARY KEY NOT NULL,
    at     INTEGER NOT NULL
) STRICT;
