-- Who may look at a desktop beside its owner, and how: whoever has a link, or a user.
CREATE TABLE shares (
    id          TEXT PRIMARY KEY,
    desktop_id  TEXT NOT NULL REFERENCES desktops (id) ON DELETE CASCADE,
    made_by     TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- for whom; none: by link
    user_id     TEXT REFERENCES users (id) ON DELETE CASCADE,
    -- SHA-256 of the link's secret
    secret_hash BLOB UNIQUE,
    kind        TEXT NOT NULL CHECK (kind IN ('view', 'control', 'copy')),
    clipboard   INTEGER NOT NULL CHECK (clipboard IN (0, 1)),
    sound       INTEGER NOT NULL CHECK (sound IN (0, 1)),
    created     INTEGER NOT NULL,
    expires     INTEGER NOT NULL,
    last_used   INTEGER,
    CHECK ((user_id IS NULL) <> (secret_hash IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX shares_of_desktop ON shares (desktop_id);
CREATE INDEX shares_for_user ON shares (user_id);

-- A desktop that is open in a browser, on a host name of its own. It ends with the login, or the share, that it was opened by.
CREATE TABLE openings (
    -- SHA-256 of the token in the cookie of that host name
    token_hash   BLOB PRIMARY KEY,
    -- the first part of the host name
    label        TEXT NOT NULL,
    desktop_id   TEXT NOT NULL REFERENCES desktops (id) ON DELETE CASCADE,
    session_hash BLOB REFERENCES sessions (token_hash) ON DELETE CASCADE,
    share_id     TEXT REFERENCES shares (id) ON DELETE CASCADE,
    -- what who looks is called
    name         TEXT NOT NULL,
    created      INTEGER NOT NULL,
    expires      INTEGER NOT NULL,
    CHECK (session_hash IS NOT NULL OR share_id IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE INDEX openings_of_session ON openings (session_hash, desktop_id);
CREATE INDEX openings_of_share ON openings (share_id);
CREATE INDEX openings_of_desktop ON openings (desktop_id);
