-- Work that takes a while: recorded before it begins, ended or cleared up by the next service whatever happens to this one.
CREATE TABLE operations (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,
    -- what is to be done, in JSON
    work       TEXT NOT NULL,
    kind       TEXT NOT NULL,
    -- names and ids, not references: an operation outlives what it was about
    desktop_id TEXT NOT NULL,
    desktop    TEXT NOT NULL,
    owner_id   TEXT NOT NULL,
    actor      TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'rolled_back', 'cancelled')),
    -- what it is for is recorded: after this it is not rolled back
    done       INTEGER NOT NULL DEFAULT 0 CHECK (done IN (0, 1)),
    created    INTEGER NOT NULL,
    ended      INTEGER,
    -- JSON: why it failed, what came of it
    problem    TEXT,
    result     TEXT
) STRICT;

CREATE INDEX operations_unended ON operations (state) WHERE ended IS NULL;

-- What happened, for who watches. The oldest go.
CREATE TABLE events (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    -- who may see it: who may see a desktop of this owner
    owner_id TEXT NOT NULL,
    data     TEXT NOT NULL
) STRICT;

-- Answers to requests that may come a second time.
CREATE TABLE idempotency (
    actor   TEXT NOT NULL,
    key     TEXT NOT NULL,
    -- SHA-256 of method, address and body
    request BLOB NOT NULL,
    created INTEGER NOT NULL,
    -- none: it is being worked at
    status  INTEGER,
    kind    TEXT,
    body    BLOB,
    PRIMARY KEY (actor, key)
) STRICT, WITHOUT ROWID;

-- How often what a desktop is was changed.
ALTER TABLE desktops ADD COLUMN generation INTEGER NOT NULL DEFAULT 1;
