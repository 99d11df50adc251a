-- One row for each pair of nodes: the median, and how far half of the pairs are from it.
SELECT
    node, other_node,
    quantileExact(0.5)(ahead_s) AS ahead,
    quantileExact(0.75)(ahead_s) - quantileExact(0.25)(ahead_s) AS spread,
    count() AS pairs
FROM ({pairs})
GROUP BY node, other_node
