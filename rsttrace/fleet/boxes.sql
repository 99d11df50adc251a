-- Who forges, as each victim sees it: what has the same distance, neighbour and manner is one side of
-- one box. `before` counts those of the span before; `first` is the first in both.
SELECT
    cityHash64(author, device, hops_rst, mac, vendor, neighbor) AS side,
    author, device, hops_rst AS hops, mac, vendor, neighbor,
    sumIf(seen, time >= {from:DateTime64(9)}) AS resets,
    sumIf(seen, time < {from:DateTime64(9)}) AS before,
    groupUniqArrayIf(1000)(node, time >= {from:DateTime64(9)}) AS nodes,
    uniqExactIf(node, time >= {from:DateTime64(9)}) AS node_count,
    uniqExactIf(remote_ip, time >= {from:DateTime64(9)}) AS peer_count,
    groupUniqArrayIf(1000)(toString(remote_ip), time >= {from:DateTime64(9)}) AS peers,
    countIf(other_end = 'never-sent' AND time >= {from:DateTime64(9)}) AS never_sent,
    min(time) AS first, max(time) AS last,
    arrayFilter(each -> each != '', topK(5)(trigger)) AS triggers,
    topK(5)(least(local_port, remote_port)) AS ports,
    groupArrayIf(1000)((node, toUnixTimestamp64Nano(time), ip_id, trigger_ip_id),
        ip_id IS NOT NULL AND seen = 1) AS ip_ids
FROM judged
WHERE verdict = 'forged' AND direction = 'received' AND made_here = 0
  AND time >= {before:DateTime64(9)} AND time < {to:DateTime64(9)}
GROUP BY author, device, hops_rst, mac, vendor, neighbor
HAVING resets > 0
ORDER BY resets DESC
LIMIT 1000
