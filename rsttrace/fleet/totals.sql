-- How many of what, and what the other ends say.
SELECT
    sum(seen) AS resets,
    uniqExact(node) AS nodes,
    sumIf(seen, verdict = 'forged') AS forged,
    sumIf(seen, verdict = 'peer') AS peer,
    sumIf(seen, verdict = 'local') AS local,
    sumIf(seen, verdict = 'inconclusive') AS inconclusive,
    sumIf(seen, direction = 'received') AS received,
    countIf(other_end = 'left') AS sent_by_the_peer,
    countIf(other_end = 'never-sent') AS never_sent,
    countIf(verdict != origin) AS amended,
    min(time) AS first, max(time) AS last
FROM judged
WHERE time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
