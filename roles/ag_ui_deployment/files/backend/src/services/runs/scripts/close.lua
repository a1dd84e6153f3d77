-- Ends a run whose process has died. Does nothing if the lease exists or the log has grown.
--
-- KEYS  the log of the run; its lease; the runs of the user
-- ARGV  the expiry of the log in seconds; the number of records that the caller has read; the name
--       of the run; the records that end it
--
-- Returns 1 if it ended the run, else 0.

local log, lease, runs = KEYS[1], KEYS[2], KEYS[3]
local ttl, read_count, name = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]

if redis.call('EXISTS', lease) == 1 or redis.call('XLEN', log) > read_count then
  return 0
end
redis.call('SET', lease, 'closed', 'EX', ttl)
for i = 4, #ARGV do
  redis.call('XADD', log, (read_count + i - 3) .. '-0', 'd', ARGV[i])
end
redis.call('EXPIRE', log, ttl)
redis.call('ZREM', runs, name)
return 1
