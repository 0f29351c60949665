-- Files in layers/, named by their ids. A machine writes only to a layer that nothing else reaches.
CREATE TABLE layers (
    id      TEXT PRIMARY KEY,
    -- the layer below, or the image's raw file below; neither: the file itself is raw
    parent  TEXT REFERENCES layers (id),
    image   TEXT,
    created INTEGER NOT NULL,
    CHECK (parent IS NULL OR image IS NULL)
) STRICT;

CREATE INDEX layers_on_layers ON layers (parent);

-- Folders in snapshots/, named by their ids.
CREATE TABLE snapshots (
    -- in the order that they were taken
    number       INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    -- in whose list it stands; none: it is kept only while something refers to it
    desktop_id   TEXT REFERENCES desktops (id) ON DELETE SET NULL,
    image        TEXT NOT NULL,
    image_digest TEXT NOT NULL,
    image_folder TEXT NOT NULL,
    kind         TEXT NOT NULL CHECK (kind IN ('manual', 'point', 'suspend', 'fork', 'warm')),
    name         TEXT NOT NULL,
    created      INTEGER NOT NULL,
    -- its memory file is a difference to this one's
    base         TEXT REFERENCES snapshots (id),
    memory       INTEGER NOT NULL,
    cpus         INTEGER NOT NULL,
    -- 0: it is of the disks alone and has no folder
    has_memory   INTEGER NOT NULL CHECK (has_memory IN (0, 1)),
    has_screen   INTEGER NOT NULL CHECK (has_screen IN (0, 1)),
    bytes        INTEGER NOT NULL
) STRICT;

-- made anew for its checks: `desired` knows one word more
CREATE TABLE desktops_2 (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE,
    -- none: a machine that the service itself boots, to warm an image
    owner_id     TEXT REFERENCES users (id) ON DELETE RESTRICT,
    image        TEXT NOT NULL,
    image_digest TEXT NOT NULL,
    image_folder TEXT NOT NULL,
    memory       INTEGER NOT NULL,
    cpus         INTEGER NOT NULL,
    created      INTEGER NOT NULL,
    desired      TEXT NOT NULL CHECK (desired IN ('running', 'stopped', 'suspended')),
    -- what the machine goes on from when it is next started; none: it boots
    resume       TEXT REFERENCES snapshots (id),
    -- whose memory file the machine's next snapshot is a difference to
    base         TEXT REFERENCES snapshots (id),
    ended_at     INTEGER,
    ended_reason TEXT,
    ended_failed INTEGER
) STRICT;

INSERT INTO desktops_2
    (id, name, owner_id, image, image_digest, image_folder, memory, cpus, created, desired, ended_at, ended_reason, ended_failed)
SELECT id, name, owner_id, image, image_digest, image_folder, memory, cpus, created, desired, ended_at, ended_reason, ended_failed
FROM desktops;
DROP TABLE desktops;
ALTER TABLE desktops_2 RENAME TO desktops;
CREATE INDEX desktops_of_owner ON desktops (owner_id);

CREATE INDEX snapshots_of_desktop ON snapshots (desktop_id);

-- The topmost layer of each disk that the guest can write to; disks are counted as in image.json.
CREATE TABLE desktop_disks (
    desktop_id TEXT NOT NULL REFERENCES desktops (id) ON DELETE CASCADE,
    disk       INTEGER NOT NULL,
    layer_id   TEXT NOT NULL REFERENCES layers (id),
    PRIMARY KEY (desktop_id, disk)
) STRICT, WITHOUT ROWID;

CREATE TABLE snapshot_disks (
    snapshot_id TEXT NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    disk        INTEGER NOT NULL,
    layer_id    TEXT NOT NULL REFERENCES layers (id),
    PRIMARY KEY (snapshot_id, disk)
) STRICT, WITHOUT ROWID;

CREATE INDEX desktop_disks_by_layer ON desktop_disks (layer_id);
CREATE INDEX snapshot_disks_by_layer ON snapshot_disks (layer_id);
