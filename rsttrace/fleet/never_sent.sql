-- Received RSTs that their sender's own tracer has not seen leave, though it watched all the time:
-- its run was whole (nothing lost or filtered) and covers the moment, by its own clock.
WITH
    -- without a pair of resets nobody knows how far the clocks are apart: a wide margin
    {margin:UInt32} + if(clock.node = '', {window:UInt32}, 5 * clock.spread_s) AS margin_s,
    clock AS (SELECT node, other_node, ahead_s, spread_s FROM clocks FINAL),
    matched AS
    (
        SELECT node, run, key FROM other_ends FINAL
        WHERE fate = 'left' AND time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
    ),
    received AS
    (
        SELECT node, run, key, time, origin, score, confidence,
               local_ip, local_port, remote_ip, remote_port
        FROM entries FINAL
        -- flags are empty where its headers could not be read: nothing tells whose it was
        WHERE direction = 'received' AND made_here = 0 AND seen = 1 AND flags != ''
          AND time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
    ),
    -- Whose connections end where. That an address is a node's own is not enough: a gateway's is also
    -- that of every host it hides, whose RSTs it forwards and does not send. So the node's own log must
    -- know of this connection, or of a service at this port.
    own AS
    (
        SELECT
            local_ip AS ip, local_port AS port, any(e.node) AS node,
            uniqExact(remote_ip, remote_port) AS ends, any((remote_ip, remote_port)) AS an_end
        FROM entries AS e
        WHERE direction IN ('sent', 'received')
          AND time >= {from:DateTime64(9)} - {window:UInt32}
          AND time < {to:DateTime64(9)} + {window:UInt32}
        GROUP BY local_ip, local_port
        HAVING uniqExact(e.node) = 1
    )
SELECT
    received.node AS node, received.run AS run, received.key AS key,
    toUnixTimestamp64Nano(received.time) AS time_ns,  -- Python's times have no nanoseconds
    any(received.origin) AS origin, any(received.score) AS score,
    any(received.confidence) AS confidence,
    own.node AS other_node, any(watched.run) AS other_run
FROM received
INNER JOIN own ON received.remote_ip = own.ip AND received.remote_port = own.port
INNER JOIN (SELECT ip FROM addresses WHERE nodes = 1) AS unshared ON received.remote_ip = unshared.ip
INNER JOIN watched ON own.node = watched.node
LEFT JOIN clock ON received.node = clock.node AND own.node = clock.other_node
LEFT ANTI JOIN matched
    ON received.node = matched.node AND received.run = matched.run AND received.key = matched.key
WHERE received.node != own.node AND watched.whole
  AND (own.port < 1024 OR own.ends > 1 OR own.an_end = (received.local_ip, received.local_port))
  AND addMilliseconds(watched.since, toInt64(1000 * margin_s))
      <= addMilliseconds(received.time, -toInt64(1000 * clock.ahead_s))
  AND addMilliseconds(watched.until, -toInt64(1000 * margin_s))
      >= addMilliseconds(received.time, -toInt64(1000 * clock.ahead_s))
GROUP BY ALL
