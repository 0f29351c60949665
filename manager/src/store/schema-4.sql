-- Every change that somebody asked for, every login, every screen or console that was opened.
CREATE TABLE audit (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    -- in milliseconds
    at       INTEGER NOT NULL,
    -- names, not references: entries outlive what they tell of
    actor    TEXT NOT NULL,
    via      TEXT NOT NULL CHECK (via IN ('local', 'session', 'token', 'service', 'nobody')),
    address  TEXT NOT NULL,
    action   TEXT NOT NULL,
    resource TEXT NOT NULL,
    status   INTEGER NOT NULL,
    request  TEXT NOT NULL,
    detail   TEXT NOT NULL
) STRICT;

CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX audit_by_actor ON audit (actor, id);

CREATE TRIGGER audit_stays BEFORE DELETE ON audit BEGIN SELECT raise(ABORT, 'the audit log is only added to'); END;
CREATE TRIGGER audit_is_true BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, 'the audit log is only added to'); END;
