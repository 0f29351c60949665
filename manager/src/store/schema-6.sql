-- When its owner deleted a desktop, and what it was called: it can be recovered for a while. Meanwhile its name is its id,
-- which nobody can choose, so that another may have the old one.
ALTER TABLE desktops ADD COLUMN deleted INTEGER;
ALTER TABLE desktops ADD COLUMN deleted_name TEXT;
