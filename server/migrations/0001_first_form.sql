-- Artifacts are what an operator uploaded and the trust root vouched for. A withdrawn one keeps its row, so that the
-- history of a fleet stays readable; its file is gone.
CREATE TABLE artifacts (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256       TEXT    NOT NULL UNIQUE,
    release      TEXT    NOT NULL,
    version      TEXT    NOT NULL,
    sequence     INTEGER NOT NULL,
    size         INTEGER NOT NULL,
    description  TEXT    NOT NULL,
    uploaded_at  INTEGER NOT NULL,
    withdrawn_at INTEGER
) STRICT;

CREATE TABLE artifact_compatible (
    compatible  TEXT    NOT NULL,
    artifact_id INTEGER NOT NULL REFERENCES artifacts (id),
    position    INTEGER NOT NULL,
    PRIMARY KEY (compatible, artifact_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX artifact_compatible_by_artifact ON artifact_compatible (artifact_id, position);

-- What devices said about themselves. Nothing here is trusted for more than showing it to an operator.
CREATE TABLE devices (
    device     TEXT    PRIMARY KEY NOT NULL,
    compatible TEXT    NOT NULL,
    version    TEXT,
    sequence   INTEGER,
    user_agent TEXT    NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row per outcome of an update on a device; `report_id` is chosen by the device, so that sending twice is harmless.
CREATE TABLE reports (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    device        TEXT    NOT NULL,
    report_id     TEXT    NOT NULL,
    compatible    TEXT    NOT NULL,
    release       TEXT,
    version       TEXT,
    from_version  TEXT,
    slot          TEXT,
    outcome       TEXT    NOT NULL,
    phase         TEXT,
    code          TEXT,
    message       TEXT,
    boot_id       TEXT,
    started_at    INTEGER,
    duration_ms   INTEGER,
    bytes_fetched INTEGER,
    log           TEXT    NOT NULL,
    received_at   INTEGER NOT NULL,
    UNIQUE (device, report_id)
) STRICT;

CREATE INDEX reports_by_device ON reports (device, id);
