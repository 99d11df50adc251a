-- Honest resets: whose, and why.
SELECT
    owner, cause, direction,
    any(summary) AS example,
    sum(seen) AS resets,
    uniqExact(node) AS nodes,
    uniqExact(remote_ip) AS peers,
    round(quantileExactIf(0.5)(toFloat64(ifNull(idle_s, 0)), idle_s > 0), 1) AS idle_s,
    anyIf(closed_by, closed_by != '') AS closed_by,
    topKArray(3)(findings) AS findings
FROM judged
WHERE verdict IN ('local', 'peer')
  AND time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
GROUP BY owner, cause, direction
ORDER BY resets DESC
LIMIT {most:UInt32}
