-- made anew for its checks: there are more roles
CREATE TABLE users_3 (
    id            TEXT PRIMARY KEY,
    name          TEXT NOT NULL UNIQUE,
    role          TEXT NOT NULL CHECK (role IN ('admin', 'user', 'developer', 'auditor')),
    -- `!`: nobody has chosen one yet, and none fits
    password_hash TEXT NOT NULL,
    -- the password was made by the service and must be replaced at the first login
    must_change   INTEGER NOT NULL CHECK (must_change IN (0, 1)),
    disabled      INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    -- the key that an authenticator has too; it counts from the first code that was shown
    totp_secret   BLOB,
    totp_confirmed INTEGER NOT NULL DEFAULT 0 CHECK (totp_confirmed IN (0, 1)),
    -- the time step of the last code that was accepted: none is accepted twice
    totp_step     INTEGER NOT NULL DEFAULT 0,
    -- none: not limited
    max_desktops  INTEGER,
    max_memory    INTEGER,
    max_cpus      INTEGER,
    created       INTEGER NOT NULL
) STRICT;

INSERT INTO users_3 (id, name, role, password_hash, must_change, created)
SELECT id, name, role, password_hash, must_change, created FROM users;
DROP TABLE users;
ALTER TABLE users_3 RENAME TO users;

CREATE TABLE groups (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    -- what its members may do in addition
    role    TEXT CHECK (role IN ('admin', 'user', 'developer', 'auditor')),
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE group_members (
    group_id TEXT NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    user_id  TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (group_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX group_members_by_user ON group_members (user_id);

-- what a session is called where it is listed, and from where it is used
ALTER TABLE sessions ADD COLUMN id TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN agent TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN last_used INTEGER NOT NULL DEFAULT 0;
UPDATE sessions SET id = lower(hex(randomblob(16))), last_used = created;
CREATE UNIQUE INDEX sessions_by_id ON sessions (id);

CREATE TABLE tokens (
    id         TEXT PRIMARY KEY,
    -- SHA-256 of the token: a copy of this file lets nobody in
    token_hash BLOB NOT NULL UNIQUE,
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    -- words with spaces between
    scopes     TEXT NOT NULL,
    created    INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    last_used  INTEGER,
    UNIQUE (user_id, name)
) STRICT;

-- Invitations and resets: each lets whoever has it choose a password, once.
CREATE TABLE links (
    token_hash BLOB PRIMARY KEY,
    user_id    TEXT NOT NULL UNIQUE REFERENCES users (id) ON DELETE CASCADE,
    expires    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE recovery_codes (
    user_id   TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    code_hash BLOB NOT NULL,
    PRIMARY KEY (user_id, code_hash)
) STRICT, WITHOUT ROWID;
