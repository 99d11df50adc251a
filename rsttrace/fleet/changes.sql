-- What is more or less than in the span of the same length before: whose, and why.
SELECT
    verdict, cause, author, owner,
    sumIf(seen, time >= {from:DateTime64(9)}) AS now,
    sumIf(seen, time < {from:DateTime64(9)}) AS before
FROM judged
WHERE time >= {before:DateTime64(9)}
  AND time < {to:DateTime64(9)}
GROUP BY verdict, cause, author, owner
HAVING now >= 10 * (before + 1) OR before >= 10 * (now + 1) OR (now > 0 AND before = 0)
ORDER BY abs(toInt64(now) - toInt64(before)) DESC
LIMIT {most:UInt32}
