"""The fleet's tables, for SQLite and PostgreSQL alike; times are seconds since 1970 UTC.

``*_s`` columns are by this server's clock, ``t`` by the clock of the data.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

VERSION = 2
"""Of the layout; tables of another are not touched."""

# SQLite numbers rows by itself only where the type is INTEGER.
_ID = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

layout = Table("fleet_layout", metadata, Column("version", Integer, primary_key=True))

node = Table(
    "node",
    metadata,
    Column("site", String(200), primary_key=True),
    Column("node", String(200), primary_key=True),
    Column("online", Boolean, nullable=False),
    Column("since_s", Double, nullable=False),  # that it is online, or is not
    Column("heard_s", Double, nullable=False),
    Column("readings", BigInteger, nullable=False),
    Column("rejected", BigInteger, nullable=False),
    Column("bad", BigInteger, nullable=False),
    Column("problem", Text, nullable=False),
    Column("retrain", Boolean, nullable=False),
    Column("replayed_s", Double),  # when a report out of its backlog last came
    Column("behind_s", Double),  # by how much that was late
    Column("status", Text, nullable=False),  # as it came
    Column("config", Text, nullable=False),  # as it came; empty: not yet
    Column("area", String(200), nullable=False),
    Column("line", String(200), nullable=False),
)

machine = Table(
    "machine",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("site", String(200), nullable=False),
    Column("node", String(200), nullable=False),
    Column("asset", String(200), nullable=False),
    Column("asset_class", String(200), nullable=False),
    Column("heard_s", Double, nullable=False),
    Column("rank", Integer, nullable=False),  # of its state: 0 is the worst
    Column("state", String(16), nullable=False),  # empty: no report yet
    Column("health", Double),
    Column("score", Double),
    Column("rul_h", Double),
    Column("rul_low_h", Double),
    Column("rul_high_h", Double),
    Column("t", Double),
    Column("judged_by", Integer, nullable=False),
    Column("doubtful", Boolean, nullable=False),  # its newest data bears marks
    Column("report", Text, nullable=False),  # as it came; empty: none yet
    Column("alert", Text, nullable=False),  # the newest, as it came; empty: none yet
    Column("alert_now", String(16), nullable=False),
    Column("alert_t", Double),
    UniqueConstraint("site", "node", "asset"),
)
Index("machine_worst", machine.c.rank, machine.c.health)
Index("machine_heard", machine.c.heard_s)

history = Table(
    "history",
    metadata,
    Column("machine_id", _ID, primary_key=True, autoincrement=False),
    Column("t", Double, primary_key=True),
    Column("heard_s", Double, nullable=False),
    Column("state", String(16), nullable=False),
    Column("health", Double),
    Column("score", Double),
    Column("rul_h", Double),
    Column("rul_low_h", Double),
    Column("rul_high_h", Double),
    sqlite_with_rowid=False,  # one tree in place of two: half the room
)
Index("history_heard", history.c.heard_s)

feature_names = Table(
    "feature_names",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("digest", String(32), nullable=False, unique=True),
    Column("names", Text, nullable=False),  # as JSON
)

feature = Table(
    "feature",
    metadata,
    Column("machine_id", _ID, primary_key=True, autoincrement=False),
    Column("t", Double, primary_key=True),
    Column("heard_s", Double, nullable=False),
    Column("names_id", _ID, nullable=False),
    Column("body", Text, nullable=False),  # the values as JSON, in the order of their names
    sqlite_with_rowid=False,
)
Index("feature_heard", feature.c.heard_s)

spectrum = Table(
    "spectrum",
    metadata,
    Column("machine_id", _ID, primary_key=True, autoincrement=False),
    Column("waveform", String(200), primary_key=True),
    Column("t", Double, nullable=False),
    Column("heard_s", Double, nullable=False),
    Column("body", Text, nullable=False),  # of the newest burst, as it came
)

alert = Table(
    "alert",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("machine_id", _ID, nullable=False),
    Column("alert", String(400), nullable=False),  # the device's own id of it
    Column("t", Double, nullable=False),
    Column("heard_s", Double, nullable=False),
    Column("state", String(16), nullable=False),
    Column("now", String(16), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("ref", String(64), nullable=False),
    Column("text", Text, nullable=False),
    UniqueConstraint("machine_id", "alert", "t", "state", "ref"),
)

said = Table(
    "said",
    metadata,
    Column("ref", String(64), primary_key=True),
    Column("machine_id", _ID, nullable=False),
    Column("at_s", Double, nullable=False),
    Column("by", String(64), nullable=False),
    Column("what", Text, nullable=False),  # in words
    Column("answered_s", Double),
)
Index("said_machine", said.c.machine_id)

live = Table(
    "live",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("site", String(200), nullable=False),
    Column("node", String(200), nullable=False),
    Column("asset_class", String(200), nullable=False),
    Column("version", Integer, nullable=False),
    Column("since_s", Double, nullable=False),
)
Index("live_node", live.c.site, live.c.node)
