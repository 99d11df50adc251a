-- How far the receivers' clocks are ahead of the senders': pairs of entries on the same RST.
-- A RST that one end repeats (seq and ack alike) would pair with the wrong one: it is left out.
WITH
    sent AS
    (
        SELECT node, local_ip, local_port, remote_ip, remote_port, seq, ack, flags,
               any(time) AS at, count() AS times
        FROM entries FINAL
        WHERE direction = 'sent' AND time >= {from:DateTime64(9)} - {window:UInt32}
          AND time < {to:DateTime64(9)} + {window:UInt32}
        GROUP BY ALL
        HAVING times = 1
    ),
    received AS
    (
        SELECT node, local_ip, local_port, remote_ip, remote_port, seq, ack, flags,
               any(time) AS at, count() AS times
        FROM entries FINAL
        WHERE direction = 'received' AND time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
        GROUP BY ALL
        HAVING times = 1
    )
SELECT
    received.node AS node,
    sent.node AS other_node,
    toFloat64(toUnixTimestamp64Nano(received.at) - toUnixTimestamp64Nano(sent.at)) / 1e9 AS ahead_s
FROM received
INNER JOIN sent
    ON received.local_ip = sent.remote_ip AND received.local_port = sent.remote_port
    AND received.remote_ip = sent.local_ip AND received.remote_port = sent.local_port
    AND received.seq = sent.seq AND received.ack = sent.ack AND received.flags = sent.flags
WHERE received.node != sent.node AND abs(ahead_s) <= {window:UInt32}
