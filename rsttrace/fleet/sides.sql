-- Sides of one box: of one connection both ends were reset. The same addresses and ports at both; where
-- NAT is between them, the packet that one end's RST answers has the number of the other end's RST.
-- A router that makes its own packets is so far from the two ends that, with itself, it is their way;
-- one that takes over others' TTL is not (`fits` counts).
WITH forged AS
(
    SELECT
        cityHash64(author, device, hops_rst, mac, vendor, neighbor) AS side,
        node, time, local_ip, local_port, remote_ip, remote_port, seq, hops_rst, hops_peer,
        JSONExtractUInt(json, 'trigger', 'seq') AS answered
    FROM judged
    WHERE verdict = 'forged' AND direction = 'received' AND made_here = 0 AND seen = 1
      AND time >= {before:DateTime64(9)} AND time < {to:DateTime64(9)}
)
SELECT
    side, other_side, count() AS connections,
    countIf(ifNull(fit, false)) AS fits, anyIf(way, ifNull(fit, false)) AS way
FROM
(
    SELECT one.side AS side, other.side AS other_side,
           one.hops_peer AS way, one.hops_rst + other.hops_rst + 1 = one.hops_peer AS fit
    FROM forged AS one
    INNER JOIN forged AS other
        ON one.local_ip = other.remote_ip AND one.local_port = other.remote_port
        AND one.remote_ip = other.local_ip AND one.remote_port = other.local_port
    WHERE one.node < other.node AND abs(dateDiff('second', one.time, other.time)) <= {window:UInt32}
    UNION ALL
    SELECT one.side AS side, other.side AS other_side,
           one.hops_peer AS way, one.hops_rst + other.hops_rst + 1 = one.hops_peer AS fit
    FROM forged AS one
    INNER JOIN forged AS other
        ON one.remote_ip = other.local_ip AND one.remote_port = other.local_port
        AND one.answered = toUInt64(other.seq)
    WHERE one.answered > 65535 AND one.node != other.node AND one.local_ip != other.remote_ip
      AND abs(dateDiff('second', one.time, other.time)) <= {window:UInt32}
)
GROUP BY side, other_side
ORDER BY connections DESC
LIMIT 10000
