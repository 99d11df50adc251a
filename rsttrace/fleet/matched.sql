-- Each received RST with the sender's own entry on it. By addresses and ports; where NAT changed them,
-- by one port and both numbers, which no two RSTs of that time share by chance. What was only counted
-- (`seen` above 1) is no packet of its own.
WITH
    clock AS (SELECT node, other_node, ahead_s, spread_s FROM clocks FINAL),
    sent AS
    (
        SELECT node, run, key, kind, time, local_ip, local_port, remote_ip, remote_port,
               seq, ack, flags
        FROM entries FINAL
        WHERE direction = 'sent' AND seen = 1
          AND time >= {from:DateTime64(9)} - {window:UInt32}
          AND time < {to:DateTime64(9)} + {window:UInt32}
    ),
    received AS
    (
        SELECT node, run, key, time, local_ip, local_port, remote_ip, remote_port, seq, ack, flags
        FROM entries FINAL
        WHERE direction = 'received' AND made_here = 0 AND seen = 1
          AND time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
    ),
    pairs AS
    (
        SELECT
            received.node AS node, received.run AS run, received.key AS key, received.time AS time,
            sent.node AS other_node, sent.run AS other_run, sent.key AS other_key,
            sent.kind AS other_kind,
            toFloat64(toUnixTimestamp64Nano(received.time) - toUnixTimestamp64Nano(sent.time)) / 1e9
                AS apart_s,
            received.local_ip != sent.remote_ip OR received.remote_ip != sent.local_ip
                OR received.local_port != sent.remote_port
                OR received.remote_port != sent.local_port AS translated,
            received.local_port = sent.remote_port OR received.remote_port = sent.local_port
                AS a_port
        FROM received
        INNER JOIN sent
            ON received.seq = sent.seq AND received.ack = sent.ack AND received.flags = sent.flags
        WHERE received.node != sent.node AND abs(apart_s) <= {window:UInt32}
          AND (NOT translated OR (a_port AND (received.seq > 65535 OR received.ack > 65535)))
    )
SELECT
    pairs.node AS node, pairs.run AS run, pairs.key AS key, pairs.time AS time,
    argMin(other_node, off_s) AS found_node, argMin(other_run, off_s) AS found_run,
    argMin(other_key, off_s) AS found_key, argMin(other_kind, off_s) AS found_kind,
    argMin(translated, off_s) AS found_translated, argMin(apart_s, off_s) AS delta_s
FROM
(
    SELECT
        pairs.*, abs(apart_s - clock.ahead_s) AS distance_s,
        -- an exact pair first, then the one that fits the clocks best
        distance_s + translated * 1e6 AS off_s,
        greatest(1., 5 * clock.spread_s) AS allowed_s
    FROM pairs
    LEFT JOIN clock ON pairs.node = clock.node AND pairs.other_node = clock.other_node
    WHERE distance_s <= allowed_s OR clock.node = ''
) AS pairs
GROUP BY ALL
