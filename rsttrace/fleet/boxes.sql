-- Who forges: what has the same distance, neighbour and manner is taken for one box.
SELECT
    author, device, hops_rst AS hops, mac, vendor, neighbor,
    count() AS resets,
    uniqExact(node) AS nodes,
    uniqExact(remote_ip) AS peers,
    countIf(other_end = 'never-sent') AS never_sent,
    countIf(other_end = 'left') AS sent_after_all,
    min(time) AS first, max(time) AS last,
    topK(3)(trigger) AS triggers,
    topK(3)(toString(remote_port)) AS ports,
    arraySlice(groupUniqArray(20)(node), 1, 5) AS some_nodes
FROM judged
WHERE verdict = 'forged' AND direction = 'received' AND made_here = 0
  AND time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
GROUP BY author, device, hops, mac, vendor, neighbor
ORDER BY resets DESC
LIMIT {most:UInt32}
