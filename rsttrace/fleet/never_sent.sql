-- Received RSTs that their sender's own tracer has not seen leave, though it watched all the time:
-- its run was whole (nothing lost or filtered) and covers the moment, by its own clock.
WITH
    clock AS (SELECT node, other_node, ahead_s, spread_s FROM clocks FINAL),
    matched AS
    (
        SELECT node, run, key FROM other_ends FINAL
        WHERE fate = 'left' AND time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
    )
SELECT
    received.node AS node, received.run AS run, received.key AS key, received.time AS time,
    owner.node AS other_node, any(watched.run) AS other_run
FROM (SELECT * FROM entries FINAL) AS received
INNER JOIN (SELECT ip, node FROM addresses WHERE nodes = 1) AS owner
    ON received.remote_ip = owner.ip
INNER JOIN watched ON owner.node = watched.node
LEFT JOIN clock ON received.node = clock.node AND owner.node = clock.other_node
LEFT ANTI JOIN matched
    ON received.node = matched.node AND received.run = matched.run AND received.key = matched.key
WHERE received.direction = 'received' AND received.made_here = 0
  AND received.time >= {from:DateTime64(9)} AND received.time < {to:DateTime64(9)}
  AND received.node != owner.node AND watched.whole
  -- without a pair of resets nobody knows how far the clocks are apart: a wide margin
  AND addSeconds(watched.since, {margin:UInt32} + if(clock.node = '', {window:UInt32}, 0))
      <= addMilliseconds(received.time, -toInt64(clock.ahead_s * 1000))
  AND addSeconds(watched.until, -toInt64({margin:UInt32} + if(clock.node = '', {window:UInt32}, 0)))
      >= addMilliseconds(received.time, -toInt64(clock.ahead_s * 1000))
GROUP BY ALL
