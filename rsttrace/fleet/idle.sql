-- Who closes idle connections first: the end that had closed a connection that the other one then used.
SELECT
    if(closed_by = 'local', owner, '') AS owner,
    toString(if(closed_by = 'local', local_ip, remote_ip)) AS closer,
    least(local_port, remote_port) AS port,
    round(quantileExact(0.5)(toFloat64(assumeNotNull(idle_s))), 1) AS typical_s,
    round(min(toFloat64(assumeNotNull(idle_s))), 1) AS least_s,
    round(max(toFloat64(assumeNotNull(idle_s))), 1) AS most_s,
    sum(seen) AS resets,
    uniqExact(node) AS nodes,
    uniqExact(if(closed_by = 'local', remote_ip, local_ip)) AS used_by
FROM judged
WHERE verdict IN ('local', 'peer') AND closed_by IN ('local', 'peer') AND idle_s >= 1
  AND time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
GROUP BY owner, closer, port
ORDER BY resets DESC
LIMIT {most:UInt32}
