"""The table that all three ways to SQLite use, and how durable it is: WAL with a sync for each commit."""

from __future__ import annotations

OPEN = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA cache_size=-65536",
    "CREATE TABLE IF NOT EXISTS log(number INTEGER PRIMARY KEY, item BLOB NOT NULL)",
)

# Row ids begin at 1: position p has number p + 1.
INSERT = "INSERT INTO log(item) VALUES(?)"
SELECT = "SELECT item FROM log WHERE number=?"
REPLAY = "SELECT number - 1, item FROM log ORDER BY number"
REPLAY_FROM = "SELECT number - 1, item FROM log WHERE number > ? ORDER BY number LIMIT 1000"
PRUNE = "DELETE FROM log WHERE number <= ?"
VACUUM = "VACUUM"
CHECKPOINT = "PRAGMA wal_checkpoint(TRUNCATE)"

# Rows that a cursor fetches in one hop.
ROWS = 1_000
