-- Sides of one box: of one connection both ends were reset. The same addresses and ports at both; where
-- NAT is between them, the packet that one end's RST answers has the number of the other end's RST.
-- A router that makes its own packets is so far from the two ends that, with itself, it is their way;
-- one that takes over others' TTL is not (`fits` counts).
WITH forged AS
(
    SELECT
        cityHash64(author, device, hops_rst, mac, vendor, neighbor) AS side,
        node, time, local_ip, local_port, remote_ip, remote_port, seq, hops_rst, hops_peer,
        trigger_seq AS answered
    FROM judged
    WHERE verdict = 'forged' AND direction = 'received' AND made_here = 0 AND seen = 1
      AND time >= {before:DateTime64(9)} AND time < {to:DateTime64(9)}
),
-- What two ends have in common, as one number; `part`: 0 for the first of two, 1 for the second.
marked AS
(
    SELECT
        mark.1 AS common, mark.2 AS part,
        (side, node, time, local_ip, remote_ip, hops_rst, hops_peer, mark.3) AS found
    FROM forged
    ARRAY JOIN
    [
        (sipHash64(local_ip, local_port, remote_ip, remote_port), 0, 'ends'),
        (sipHash64(remote_ip, remote_port, local_ip, local_port), 1, 'ends'),
        (if(answered > 65535, sipHash64(remote_ip, remote_port, answered), 0), 0, 'numbers'),
        (sipHash64(local_ip, local_port, seq), 1, 'numbers')
    ] AS mark
),
met AS
(
    SELECT groupArrayIf(20)(found, part = 0) AS firsts, groupArrayIf(20)(found, part = 1) AS seconds
    FROM marked
    WHERE common != 0
    GROUP BY common
    HAVING notEmpty(firsts) AND notEmpty(seconds)
)
SELECT
    side, other_side, count() AS connections,
    countIf(ifNull(fit, false)) AS fits, anyIf(way, ifNull(fit, false)) AS way
FROM
(
    SELECT
        one.1 AS side, other.1 AS other_side, one.7 AS way, one.6 + other.6 + 1 = one.7 AS fit
    FROM met
    ARRAY JOIN firsts AS one
    ARRAY JOIN seconds AS other
    WHERE one.8 = other.8 AND abs(dateDiff('second', one.3, other.3)) <= {window:UInt32}
      -- each pair once: the same addresses at both ends, or others and the same numbers
      AND if(one.8 = 'ends', one.2 < other.2, one.2 != other.2 AND one.4 != other.5)
)
GROUP BY side, other_side
ORDER BY connections DESC
LIMIT 10000
