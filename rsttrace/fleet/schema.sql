-- What `rsttrace fleet` keeps. One statement each, ended by a semicolon at the end of a line.
-- {engine} is ReplacingMergeTree, or its replicated form where cluster.sql is used.

-- An entry is known by node, run and key (the id of the first entry on its reset). An amendment has a
-- higher revision, and so replaces it; the same line loaded twice is one row after merging, and always
-- one row in the view `resets`. Ordered by hour first: every question is about a span of time.
CREATE TABLE IF NOT EXISTS entries
(
    node LowCardinality(String),
    run String CODEC(ZSTD(1)),
    key UInt64 CODEC(Delta, ZSTD(1)),
    revision UInt64 CODEC(ZSTD(1)),
    time DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    direction LowCardinality(String),
    kind LowCardinality(String),
    origin LowCardinality(String),
    confidence Nullable(Float32),
    score Float32,
    cause LowCardinality(String),
    summary String CODEC(ZSTD(3)),
    closed_by LowCardinality(String),
    idle_s Nullable(Float32),
    local_ip IPv6,
    local_port UInt16,
    remote_ip IPv6,
    remote_port UInt16,
    flags LowCardinality(String),
    seq UInt32,
    ack UInt32,
    ttl UInt8,
    ip_id Nullable(UInt16),
    hops_rst Nullable(UInt8),
    hops_peer Nullable(UInt8),
    author LowCardinality(String),
    device LowCardinality(String),
    mac LowCardinality(String),
    vendor LowCardinality(String),
    neighbor LowCardinality(String),
    made_here UInt8,
    findings Array(LowCardinality(String)),
    owner LowCardinality(String),
    trigger LowCardinality(String),
    trigger_seq UInt32,
    trigger_ip_id Nullable(UInt16),
    seen UInt64,
    json String CODEC(ZSTD(6))
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(time)
ORDER BY (toStartOfHour(time), node, run, key)
TTL toDateTime(time) + INTERVAL 180 DAY;

-- From when until when a node was watching. `whole`: nothing was lost, and nothing filtered.
-- A run whose last line never came (a power cut) is known by its entries alone: ended is null.
CREATE TABLE IF NOT EXISTS runs
(
    node LowCardinality(String),
    run String,
    boot String,
    version LowCardinality(String),
    first DateTime64(9, 'UTC'),
    last DateTime64(9, 'UTC'),
    started Nullable(DateTime64(9, 'UTC')),
    ended Nullable(DateTime64(9, 'UTC')),
    lost UInt64,
    filtered Nullable(UInt64),
    revision UInt64
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (node, run);

-- How far a source has been read: a load that was killed goes on there.
CREATE TABLE IF NOT EXISTS loads
(
    source String,
    head String,
    lines UInt64,
    skipped UInt64,
    revision UInt64
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (source, head);

-- What the other end's own log says of a received reset; written by `fleet report`.
CREATE TABLE IF NOT EXISTS other_ends
(
    node LowCardinality(String),
    run String,
    key UInt64,
    time DateTime64(9, 'UTC'),
    fate LowCardinality(String),
    other_node LowCardinality(String),
    other_run String,
    other_key UInt64,
    other_kind LowCardinality(String),
    translated UInt8,
    delta_s Float64,
    origin LowCardinality(String),
    confidence Nullable(Float32),
    revision UInt64
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(time)
ORDER BY (toStartOfHour(time), node, run, key)
TTL toDateTime(time) + INTERVAL 180 DAY;

-- How far a node's clock is ahead of another's, in seconds: from resets that both know of.
CREATE TABLE IF NOT EXISTS clocks
(
    node LowCardinality(String),
    other_node LowCardinality(String),
    ahead_s Float64,
    spread_s Float64,
    pairs UInt64,
    revision UInt64
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (node, other_node);

-- What shippers (Fluent Bit, Vector) insert as it came; `fleet load --incoming` makes entries of it. Kept
-- for a week, so that a load may be late.
CREATE TABLE IF NOT EXISTS incoming
(
    log String CODEC(ZSTD(3)),
    received DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
PARTITION BY toDate(received)
ORDER BY received
TTL toDateTime(received) + INTERVAL 7 DAY;
