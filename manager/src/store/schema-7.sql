-- What a desktop used in an hour. Names, not references: what was used stays used.
CREATE TABLE usage (
    desktop_id    TEXT NOT NULL,
    -- the hour's first second
    begin         INTEGER NOT NULL,
    desktop       TEXT NOT NULL,
    owner_id      TEXT NOT NULL,
    owner         TEXT NOT NULL,
    running_ms    INTEGER NOT NULL,
    cpu_us        INTEGER NOT NULL,
    -- mebibytes times milliseconds
    memory_mib_ms INTEGER NOT NULL,
    read          INTEGER NOT NULL,
    written       INTEGER NOT NULL,
    -- bytes that its disks took, at most
    disk          INTEGER NOT NULL,
    PRIMARY KEY (desktop_id, begin)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_by_time ON usage (begin);

-- How far the counters of what runs have been added up: in the same transaction, so that nothing is added twice or lost.
CREATE TABLE meters (
    desktop_id TEXT NOT NULL,
    source     TEXT NOT NULL,
    cpu_us     INTEGER NOT NULL,
    read       INTEGER NOT NULL,
    written    INTEGER NOT NULL,
    -- in milliseconds
    at         INTEGER NOT NULL,
    PRIMARY KEY (desktop_id, source)
) STRICT, WITHOUT ROWID;

-- Bytes that the disks and snapshots of a user take, as they were last measured.
CREATE TABLE disk_use (
    user_id TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    bytes   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- none: not limited
ALTER TABLE users ADD COLUMN max_disk INTEGER;
ALTER TABLE users ADD COLUMN max_snapshots INTEGER;
ALTER TABLE groups ADD COLUMN max_desktops INTEGER;
ALTER TABLE groups ADD COLUMN max_memory INTEGER;
ALTER TABLE groups ADD COLUMN max_cpus INTEGER;
ALTER TABLE groups ADD COLUMN max_disk INTEGER;
ALTER TABLE groups ADD COLUMN max_snapshots INTEGER;
