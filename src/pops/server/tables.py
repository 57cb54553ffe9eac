"""The tables of the store, version by version."""

from __future__ import annotations

# Each step makes the tables of one version out of those of the version before.
STEPS = (
    """
CREATE TABLE IF NOT EXISTS photos (
    id TEXT PRIMARY KEY, width INTEGER NOT NULL, height INTEGER NOT NULL, bytes INTEGER NOT NULL, used REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, model TEXT NOT NULL, recipe TEXT NOT NULL,
    photos TEXT NOT NULL, status TEXT NOT NULL, deaths INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL, started REAL, ended REAL, error TEXT, notes TEXT NOT NULL DEFAULT '[]'
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, model, deaths, seq);
CREATE TABLE IF NOT EXISTS images (
    id TEXT PRIMARY KEY, job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, number INTEGER NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS images_by_job ON images (job, number);
""",
    """
ALTER TABLE photos ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN key TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN quick INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN favourite INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN unwanted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN place INTEGER;
ALTER TABLE jobs ADD COLUMN words TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN operators TEXT NOT NULL DEFAULT '[]';
ALTER TABLE jobs ADD COLUMN warnings TEXT NOT NULL DEFAULT '[]';
UPDATE jobs SET place = seq, words = lower(json_extract(recipe, '$.expression'));
DROP INDEX jobs_by_status;
CREATE INDEX jobs_by_status ON jobs (status, model, deaths, quick, seq);
CREATE INDEX jobs_by_key ON jobs (key);
CREATE INDEX jobs_by_place ON jobs (place);
CREATE TABLE projects (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, revision INTEGER NOT NULL, changed REAL NOT NULL,
    document TEXT NOT NULL, photos TEXT NOT NULL, pins TEXT NOT NULL
) STRICT;
""",
)
VERSION = len(STEPS)
