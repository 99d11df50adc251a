-- Who answers un-NATed: SYN-ACKs from an address that the host had not asked, so that its TCP resets
-- them. The program behind that address is known where its node's log has the same RST. (A program of
-- the host that writes SYNs through a raw socket looks the same.)
WITH strangers AS
(
    SELECT node, run, key, remote_ip, remote_port, seen
    FROM judged
    WHERE direction = 'sent' AND kind = 'sent-passive' AND trigger = 'SA'
      AND time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
),
victims AS
(
    SELECT other_node, other_run, other_key, owner, node
    FROM judged
    WHERE direction = 'received' AND other_end = 'left'
      AND time >= {from:DateTime64(9)} - {window:UInt32}
      AND time < {to:DateTime64(9)} + {window:UInt32}
)
SELECT
    toString(remote_ip) AS answers, remote_port AS port,
    max(victims.owner) AS owner, max(victims.node) AS its_node,
    sum(seen) AS resets,
    uniqExact(strangers.node) AS nodes,
    arraySlice(arraySort(groupUniqArray(20)(strangers.node)), 1, 5) AS some_nodes
FROM strangers
LEFT JOIN victims
    ON strangers.node = victims.other_node AND strangers.run = victims.other_run
    AND strangers.key = victims.other_key
GROUP BY answers, port
ORDER BY resets DESC
LIMIT {most:UInt32}
