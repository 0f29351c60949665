CREATE TABLE users (
    id            TEXT PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    role          TEXT NOT NULL CHECK (role IN ('admin', 'user')),
    password_hash TEXT NOT NULL,
    -- the password was made by the service and must be replaced at the first login
    must_change   INTEGER NOT NULL CHECK (must_change IN (0, 1)),
    created       INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    -- SHA-256 of the token in the browser's cookie: a copy of this file logs nobody in
    token_hash BLOB PRIMARY KEY,
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created    INTEGER NOT NULL,
    expires    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE desktops (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE,
    owner_id     TEXT NOT NULL REFERENCES users (id) ON DELETE RESTRICT,
    image        TEXT NOT NULL,
    image_digest TEXT NOT NULL,
    -- the folder that the image's name stood for when the desktop was made
    image_folder TEXT NOT NULL,
    memory       INTEGER NOT NULL,
    cpus         INTEGER NOT NULL,
    created      INTEGER NOT NULL,
    desired      TEXT NOT NULL CHECK (desired IN ('running', 'stopped')),
    -- how the machine last ended; all three or none
    ended_at     INTEGER,
    ended_reason TEXT,
    ended_failed INTEGER
) STRICT;

CREATE INDEX desktops_of_owner ON desktops (owner_id);
CREATE INDEX sessions_of_user ON sessions (user_id);
