-- What `rsttrace fleet sql` is meant for: each reset once, as it was judged last.

-- Every reset of every node, with its newest verdict.
CREATE OR REPLACE VIEW resets AS
SELECT * EXCEPT (revision) FROM entries FINAL;

-- The same with what the other end's own log says; `verdict` is what follows from both. Joined by the
-- time too, so that of both tables only the span of time that is asked for is read; and by one number in
-- place of texts, which takes a third of the time.
CREATE OR REPLACE VIEW judged AS
SELECT
    resets.*,
    ends.fate AS other_end,
    ends.other_node AS other_node,
    ends.other_kind AS other_kind,
    ends.other_run AS other_run,
    ends.other_key AS other_key,
    ends.delta_s AS delta_s,
    if(ends.origin = '', resets.origin, ends.origin) AS verdict,
    if(ends.origin = '', resets.confidence, ends.confidence) AS sure
FROM resets
LEFT ANY JOIN (SELECT *, cityHash64(node, run, key) AS id FROM other_ends FINAL) AS ends
    ON resets.time = ends.time AND cityHash64(resets.node, resets.run, resets.key) = ends.id;

-- From when until when each node was watching, and whether it told of everything.
CREATE OR REPLACE VIEW watched AS
SELECT
    node, run, version,
    ifNull(started, first) AS since,
    ifNull(ended, last) AS until,
    lost = 0 AND ifNull(filtered, 1) = 0 AND ended IS NOT NULL AS whole,
    lost, filtered
FROM runs FINAL;

-- Which node has an address, as far as its own entries show; `nodes` above 1: several have it.
CREATE OR REPLACE VIEW addresses AS
SELECT local_ip AS ip, any(e.node) AS node, uniqExact(e.node) AS nodes
FROM entries AS e
WHERE direction != 'forwarded'
GROUP BY local_ip;
