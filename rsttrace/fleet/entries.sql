-- Entries with what the other ends say, page by page. The lines themselves, which are long, are read of
-- the page alone.
WITH page AS
(
    SELECT node, run, key, time, other_end, other_node, other_kind
    FROM judged
    WHERE time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
      AND ({verdict:String} = '' OR verdict = {verdict:String})
      AND (toUnixTimestamp64Nano(time), node, key) > ({at:Int64}, {node:String}, {key:UInt64})
    ORDER BY time, node, key
    LIMIT {most:UInt32}
)
SELECT
    page.node AS node, page.key AS key, toUnixTimestamp64Nano(page.time) AS at,
    lines.json AS json, page.other_end AS other_end, page.other_node AS other_node,
    page.other_kind AS other_kind
FROM
(
    SELECT node, run, key, json FROM entries FINAL
    WHERE time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
      AND (node, run, key) IN (SELECT node, run, key FROM page)
) AS lines
INNER JOIN page ON lines.node = page.node AND lines.run = page.run AND lines.key = page.key
ORDER BY at, node, key
