-- Appends records to the log of a run. Idempotent: existing records are not changed.
--
-- KEYS  the log of the run; its lease
-- ARGV  the expiry of the log in seconds; the number of the first record; the records
--
-- Returns the number of records in the log; -1 if another process has ended the run. Appends
-- nothing if the log lacks records before the first one (Redis lost them).

local log, lease = KEYS[1], KEYS[2]
local ttl, first = tonumber(ARGV[1]), tonumber(ARGV[2])

if redis.call('GET', lease) == 'closed' then
  return -1
end
local last = 0
local rows = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
if #rows > 0 then
  last = tonumber(string.match(rows[1][1], '^%d+'))
end
if first > last + 1 then
  return last
end
local last_new = first + #ARGV - 3
for number = last + 1, last_new do
  redis.call('XADD', log, number .. '-0', 'd', ARGV[number - first + 3])
end
redis.call('EXPIRE', log, ttl)
return math.max(last, last_new)
