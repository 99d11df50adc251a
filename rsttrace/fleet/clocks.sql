-- How far the receivers' clocks are ahead of the senders', from pairs of entries on the same RST: one
-- row for each pair of nodes, with the median, and how far half of the pairs are from it.
-- A RST that one end repeats (seq and ack alike) would pair with the wrong one: it is left out.
INSERT INTO clocks (node, other_node, ahead_s, spread_s, pairs, revision)
WITH
    sent AS
    (
        SELECT node, any(time) AS at,
               sipHash64(remote_ip, remote_port, local_ip, local_port, seq, ack, flags) AS packet
        FROM entries FINAL
        WHERE direction = 'sent' AND seen = 1
          AND time >= {from:DateTime64(9)} - {window:UInt32}
          AND time < {to:DateTime64(9)} + {window:UInt32}
        GROUP BY node, packet
        HAVING count() = 1
    ),
    received AS
    (
        SELECT node, any(time) AS at,
               sipHash64(local_ip, local_port, remote_ip, remote_port, seq, ack, flags) AS packet
        FROM entries FINAL
        WHERE direction = 'received' AND made_here = 0 AND seen = 1
          AND time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
        GROUP BY node, packet
        HAVING count() = 1
    )
SELECT
    node, other_node,
    quantileExact(0.5)(apart_s) AS ahead,
    quantileExact(0.75)(apart_s) - quantileExact(0.25)(apart_s) AS spread,
    count() AS pairs,
    {revision:UInt64}
FROM
(
    SELECT
        received.node AS node, sent.node AS other_node,
        toFloat64(toUnixTimestamp64Nano(received.at) - toUnixTimestamp64Nano(sent.at)) / 1e9
            AS apart_s
    FROM received
    INNER JOIN sent ON received.packet = sent.packet
    WHERE received.node != sent.node AND abs(apart_s) <= {window:UInt32}
)
GROUP BY node, other_node
