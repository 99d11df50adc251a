-- How many of what, and what the other ends say.
SELECT
    count() AS resets,
    uniqExact(node) AS nodes,
    countIf(verdict = 'forged') AS forged,
    countIf(verdict = 'peer') AS peer,
    countIf(verdict = 'local') AS local,
    countIf(verdict = 'inconclusive') AS inconclusive,
    countIf(direction = 'received') AS received,
    countIf(other_end = 'left') AS sent_by_the_peer,
    countIf(other_end = 'never-sent') AS never_sent,
    countIf(verdict != origin) AS amended,
    min(time) AS first, max(time) AS last
FROM judged
WHERE time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
