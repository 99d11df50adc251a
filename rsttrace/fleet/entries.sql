-- Entries with what the other ends say, page by page.
SELECT
    node, key, toUnixTimestamp64Nano(time) AS at, json, other_end, other_node, other_kind
FROM judged
WHERE time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
  AND ({verdict:String} = '' OR verdict = {verdict:String})
  AND (at, node, key) > ({at:Int64}, {node:String}, {key:UInt64})
ORDER BY at, node, key
LIMIT {most:UInt32}
