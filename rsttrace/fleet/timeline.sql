-- How many of each verdict came when.
SELECT
    toStartOfInterval(time, toIntervalSecond({bin:UInt32})) AS at,
    sumIf(seen, verdict = 'forged') AS forged,
    sumIf(seen, verdict = 'inconclusive') AS inconclusive,
    sumIf(seen, verdict = 'peer') AS peer,
    sumIf(seen, verdict = 'local') AS local
FROM judged
WHERE time >= {from:DateTime64(9)} AND time < {to:DateTime64(9)}
GROUP BY at
ORDER BY at
