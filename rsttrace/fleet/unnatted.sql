-- Who answers un-NATed: SYN-ACKs from an address that the host had not asked, so that its TCP resets
-- them. The program behind that address is known where its node's log has the same RST. (A program of
-- the host that writes SYNs through a raw socket looks the same.)
WITH strangers AS
(
    SELECT node, run, key, remote_ip, remote_port, seen
    FROM resets
    WHERE direction = 'sent' AND kind = 'sent-passive' AND trigger = 'SA'
      AND time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
),
heard AS
(
    SELECT ends.node AS node, ends.run AS run, ends.key AS key,
           strangers.node AS by_node, strangers.run AS by_run, strangers.key AS by_key
    FROM (SELECT * FROM other_ends FINAL) AS ends
    INNER JOIN strangers
        ON ends.other_node = strangers.node AND ends.other_run = strangers.run
        AND ends.other_key = strangers.key
    WHERE ends.fate = 'left'
      AND ends.time >= {from:DateTime64(9)} - {window:UInt32}
      AND ends.time < {to:DateTime64(9)} + {window:UInt32}
),
owners AS
(
    SELECT by_node, by_run, by_key, resets.node AS node, resets.owner AS owner
    FROM resets
    INNER JOIN heard
        ON resets.node = heard.node AND resets.run = heard.run AND resets.key = heard.key
    WHERE resets.time >= {from:DateTime64(9)} - {window:UInt32}
      AND resets.time < {to:DateTime64(9)} + {window:UInt32}
)
SELECT
    toString(remote_ip) AS answers, remote_port AS port,
    max(owners.owner) AS owner, max(owners.node) AS its_node,
    sum(seen) AS resets,
    uniqExact(strangers.node) AS nodes,
    arraySlice(arraySort(groupUniqArray(20)(strangers.node)), 1, 5) AS some_nodes
FROM strangers
LEFT JOIN owners
    ON strangers.node = owners.by_node AND strangers.run = owners.by_run
    AND strangers.key = owners.by_key
GROUP BY answers, port
ORDER BY resets DESC
LIMIT {most:UInt32}
