-- The same tables on a cluster, for `clickhouse-client --multiquery`: replace CLUSTER by its name, and
-- change the sharding key only if nodes are few. `{shard}` and `{replica}` are the servers' macros.
-- Point --store at any server, at the database that holds the distributed tables. All entries of a node
-- are in one shard (a replacing table merges only within a shard); the joins between nodes go through
-- the distributed tables (distributed_product_mode).

CREATE DATABASE IF NOT EXISTS rsttrace_local ON CLUSTER CLUSTER;
CREATE DATABASE IF NOT EXISTS rsttrace ON CLUSTER CLUSTER;

-- entries: columns, partition, order and TTL as in schema.sql, with this engine:
--   ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/rsttrace/entries', '{replica}', revision)
-- runs, loads, other_ends, clocks: likewise, each with a path of its own.

CREATE TABLE IF NOT EXISTS rsttrace.entries ON CLUSTER CLUSTER AS rsttrace_local.entries
ENGINE = Distributed(CLUSTER, rsttrace_local, entries, cityHash64(node));

CREATE TABLE IF NOT EXISTS rsttrace.runs ON CLUSTER CLUSTER AS rsttrace_local.runs
ENGINE = Distributed(CLUSTER, rsttrace_local, runs, cityHash64(node));

CREATE TABLE IF NOT EXISTS rsttrace.loads ON CLUSTER CLUSTER AS rsttrace_local.loads
ENGINE = Distributed(CLUSTER, rsttrace_local, loads, cityHash64(source));

-- Shippers insert into this one; `incoming` itself is MergeTree, here ReplicatedMergeTree.
CREATE TABLE IF NOT EXISTS rsttrace.incoming ON CLUSTER CLUSTER AS rsttrace_local.incoming
ENGINE = Distributed(CLUSTER, rsttrace_local, incoming, rand());

CREATE TABLE IF NOT EXISTS rsttrace.other_ends ON CLUSTER CLUSTER AS rsttrace_local.other_ends
ENGINE = Distributed(CLUSTER, rsttrace_local, other_ends, cityHash64(node));

CREATE TABLE IF NOT EXISTS rsttrace.clocks ON CLUSTER CLUSTER AS rsttrace_local.clocks
ENGINE = Distributed(CLUSTER, rsttrace_local, clocks, cityHash64(node));

-- Counts for each minute, for dashboards: a line that comes twice is still one reset (one whose verdict
-- was amended counts for both verdicts; the view `resets` has the last one alone).
CREATE TABLE IF NOT EXISTS rsttrace_local.minutes ON CLUSTER CLUSTER
(
    minute DateTime('UTC'),
    node LowCardinality(String),
    origin LowCardinality(String),
    cause LowCardinality(String),
    resets AggregateFunction(uniqExact, UInt64)
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/rsttrace/minutes', '{replica}')
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, node, origin, cause)
TTL minute + INTERVAL 2 YEAR;

CREATE MATERIALIZED VIEW IF NOT EXISTS rsttrace_local.to_minutes ON CLUSTER CLUSTER
TO rsttrace_local.minutes AS
SELECT
    toStartOfMinute(time) AS minute, node, origin, cause,
    uniqExactState(cityHash64(run, key)) AS resets
FROM rsttrace_local.entries
GROUP BY minute, node, origin, cause;
