-- One writer (the agent); readers (the node's ClientApp, `runout-agent status`) open it read-only.
-- The journal lies beside it: agent/journal.py.
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- What was said of the assets; published from here, in this order.
CREATE TABLE IF NOT EXISTS result (
  id INTEGER PRIMARY KEY,
  asset TEXT NOT NULL,
  kind TEXT NOT NULL,              -- health, alert
  body BLOB NOT NULL,              -- JSON
  at_ns INTEGER NOT NULL DEFAULT 0,-- when it was written, by the device's clock
  seq INTEGER NOT NULL DEFAULT 0   -- of the batch in the journal that it came of
);
-- An index of all of them would cost a page for each asset that a commit speaks of.
CREATE INDEX IF NOT EXISTS result_alert ON result (id) WHERE kind = 'alert';
DROP INDEX IF EXISTS result_of;

-- Feature vectors of lives, for remaining life to be learnt from once it is known how they ended.
CREATE TABLE IF NOT EXISTS life_row (
  asset TEXT NOT NULL, life INTEGER NOT NULL, t_ns INTEGER NOT NULL,
  x BLOB NOT NULL,                 -- float64
  PRIMARY KEY (asset, life, t_ns)
) WITHOUT ROWID;

-- Lives that ended in a failure.
CREATE TABLE IF NOT EXISTS life (
  id INTEGER PRIMARY KEY,
  asset_class TEXT NOT NULL, asset TEXT NOT NULL, life INTEGER NOT NULL,
  end_ns INTEGER NOT NULL,
  heldout INTEGER NOT NULL,        -- 1: judged on, never learnt from
  UNIQUE (asset, life)
);

-- What could not be read, for a look.
CREATE TABLE IF NOT EXISTS quarantine (
  id INTEGER PRIMARY KEY,
  at_ns INTEGER NOT NULL, topic TEXT NOT NULL, reason TEXT NOT NULL, text TEXT NOT NULL,
  payload BLOB NOT NULL
);

-- Which release was offered, and what became of it.
CREATE TABLE IF NOT EXISTS rollout (
  id INTEGER PRIMARY KEY,
  at_ns INTEGER NOT NULL, asset_class TEXT NOT NULL, version INTEGER NOT NULL,
  digest TEXT NOT NULL, verdict TEXT NOT NULL, reason TEXT NOT NULL
);

-- What people found when they looked into alerts; a false alarm's time counts as healthy.
CREATE TABLE IF NOT EXISTS verdict (
  id INTEGER PRIMARY KEY,
  asset_class TEXT NOT NULL, asset TEXT NOT NULL,
  t_ns INTEGER NOT NULL,
  verdict TEXT NOT NULL,           -- confirmed, false_alarm, not_found
  alert TEXT NOT NULL,             -- asset/life/count; count 0: there was none
  life INTEGER, since_ns INTEGER, until_ns INTEGER,  -- of the alert, where that is known
  fault TEXT NOT NULL, note TEXT NOT NULL, by TEXT NOT NULL
);

-- How lives ended, and whether that was foretold.
CREATE TABLE IF NOT EXISTS ended (
  id INTEGER PRIMARY KEY,
  asset_class TEXT NOT NULL, asset TEXT NOT NULL, life INTEGER NOT NULL, t_ns INTEGER NOT NULL,
  event TEXT NOT NULL,             -- failed, maintained, replaced
  alert TEXT NOT NULL,             -- the newest of that life; empty: there was none
  stood INTEGER NOT NULL,          -- at the end
  told INTEGER NOT NULL,           -- predictions of remaining life
  error_h REAL                     -- their mean absolute error
);
