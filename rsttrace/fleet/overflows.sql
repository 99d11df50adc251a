-- Whose accept queue overflows: resets that a listener sent for that.
SELECT
    owner, local_port AS port,
    sum(seen) AS resets,
    uniqExact(node) AS nodes,
    arraySlice(arraySort(groupUniqArray(20)(node)), 1, 5) AS some_nodes,
    uniqExact(remote_ip) AS clients,
    any(summary) AS example
FROM judged
WHERE direction = 'sent' AND verdict = 'local' AND cause = 'listen-overflow'
  AND time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
GROUP BY owner, port
ORDER BY resets DESC
LIMIT {most:UInt32}
