-- Acquires the lease of a new run, unless the run exists or the user has the maximum of runs.
--
-- KEYS  the log of the run; its lease; the runs of the user, sorted by expiry of their leases; the
--       leases of runs that are being cancelled for this one and do not count
-- ARGV  the duration of the lease in milliseconds; the maximum of runs; the name of the run
--
-- Returns 'begun', 'exists' or 'full'.

local log, lease, runs = KEYS[1], KEYS[2], KEYS[3]
local ttl, max_runs, name = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]

if redis.call('EXISTS', log, lease) > 0 then
  return 'exists'
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- Removes runs whose process has died.
redis.call('ZREMRANGEBYSCORE', runs, '-inf', now)
local count = redis.call('ZCARD', runs)
for i = 4, #KEYS do
  if redis.call('GET', KEYS[i]) == 'held' then
    count = count - 1
  end
end
if count >= max_runs then
  return 'full'
end
redis.call('SET', lease, 'held', 'PX', ttl)
redis.call('ZADD', runs, now + ttl, name)
redis.call('PEXPIRE', runs, ttl * 2)
return 'begun'
