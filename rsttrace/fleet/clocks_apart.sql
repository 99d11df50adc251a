-- Nodes whose clocks are not the others': the median of what each other node's pairs say.
SELECT
    one AS node,
    round(quantileExactInclusive(0.5)(apart_s), 3) AS ahead_s,
    uniqExact(other) AS others,
    sum(pairs) AS resets
FROM
(
    SELECT node AS one, other_node AS other, ahead_s AS apart_s, pairs FROM clocks FINAL
    UNION ALL
    SELECT other_node AS one, node AS other, -ahead_s AS apart_s, pairs FROM clocks FINAL
)
GROUP BY one
HAVING abs(ahead_s) > 0.5
ORDER BY abs(ahead_s) DESC
LIMIT {most:UInt32}
