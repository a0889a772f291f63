-- The fleet: what is known of devices, who they are, which release they are to get, and how far each of them came.
-- Texts and 64-bit integers only, so that another engine can hold the same tables; truth values are 0 and 1.

ALTER TABLE devices ADD COLUMN release TEXT;
ALTER TABLE devices ADD COLUMN boot_id TEXT;
ALTER TABLE devices ADD COLUMN state TEXT;

-- What operators know about a device, for the filters of groups.
CREATE TABLE device_attributes (
    device TEXT NOT NULL,
    name   TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (device, name)
) STRICT;

-- Tokens are kept as SHA-256 only. A device that has one must show it.
CREATE TABLE device_tokens (
    device     TEXT    PRIMARY KEY NOT NULL,
    hash       TEXT    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE operators (
    name       TEXT    PRIMARY KEY NOT NULL,
    role       TEXT    NOT NULL,
    hash       TEXT    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

-- One row per change that somebody asked for, written before it is made; `status` is what came of it.
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    who     TEXT    NOT NULL,
    action  TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    status  INTEGER
) STRICT;

CREATE TABLE device_groups (
    name       TEXT    PRIMARY KEY NOT NULL,
    filters    TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- A release on its way through the fleet: an artifact, whom it is for, and how it gets there.
-- `good_before` and `bad_before` are the results that an operator has seen when resuming it.
CREATE TABLE rollouts (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT    NOT NULL UNIQUE,
    artifact     TEXT    NOT NULL REFERENCES artifacts (sha256),
    device_group TEXT    REFERENCES device_groups (name),
    stage        TEXT    NOT NULL,
    paused       TEXT,
    policy       TEXT    NOT NULL,
    start_at     INTEGER,
    good_before  INTEGER NOT NULL,
    bad_before   INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    started_at   INTEGER,
    ended_at     INTEGER
) STRICT;

CREATE INDEX rollouts_by_artifact ON rollouts (artifact);

-- Where a device stands in a release.
CREATE TABLE rollout_devices (
    rollout_id   INTEGER NOT NULL REFERENCES rollouts (id),
    device       TEXT    NOT NULL,
    step         TEXT    NOT NULL,
    since        INTEGER NOT NULL,
    class        TEXT,
    code         TEXT,
    message      TEXT,
    attempts     INTEGER NOT NULL,
    offered_at   INTEGER NOT NULL,
    next_try_at  INTEGER,
    installed_in TEXT,
    from_version TEXT,
    denied       INTEGER NOT NULL,
    PRIMARY KEY (rollout_id, device)
) STRICT;

CREATE INDEX rollout_devices_by_step ON rollout_devices (rollout_id, step, class, since);
CREATE INDEX rollout_devices_by_device ON rollout_devices (device);

-- Every step that a device took, and every turn that a release took (`device` is null then).
CREATE TABLE happenings (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    rollout_id INTEGER NOT NULL REFERENCES rollouts (id),
    device     TEXT,
    before     TEXT,
    after      TEXT    NOT NULL,
    code       TEXT,
    message    TEXT
) STRICT;

CREATE INDEX happenings_by_device ON happenings (device, id);
CREATE INDEX happenings_by_rollout ON happenings (rollout_id, id);

-- One row per try of a device, for statistics: the last word about it. `record_id` makes a word that comes twice one row.
CREATE TABLE records (
    record_id        TEXT    PRIMARY KEY NOT NULL,
    device_id        TEXT    NOT NULL,
    rollout          TEXT,
    device_group     TEXT,
    release          TEXT,
    firmware_version TEXT,
    from_version     TEXT,
    timestamp        INTEGER NOT NULL,
    status           TEXT    NOT NULL,
    duration_ms      INTEGER,
    error_class      TEXT,
    error_code       TEXT,
    phase            TEXT,
    bytes_fetched    INTEGER
) STRICT;

CREATE INDEX records_by_time ON records (timestamp);
CREATE INDEX records_by_device ON records (device_id, timestamp);
CREATE INDEX records_by_rollout ON records (rollout, timestamp);
