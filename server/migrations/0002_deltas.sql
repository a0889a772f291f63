-- Deltas lead from one release to another, both named by the SHA-256 of their manifests. The new one is an artifact here
-- when a delta is uploaded; the old one need not be: devices may run what this server never had.
CREATE TABLE deltas (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256       TEXT    NOT NULL UNIQUE,
    from_release TEXT    NOT NULL,
    to_release   TEXT    NOT NULL,
    size         INTEGER NOT NULL,
    uploaded_at  INTEGER NOT NULL,
    withdrawn_at INTEGER
) STRICT;

CREATE INDEX deltas_by_releases ON deltas (to_release, from_release, size);

CREATE INDEX artifacts_by_release ON artifacts (release);
