-- Addresses that several nodes have: a duplicate, or one that moves. Nobody is accused by them.
SELECT toString(ip) AS ip, nodes FROM addresses WHERE nodes > 1 ORDER BY nodes DESC LIMIT {most:UInt32}
