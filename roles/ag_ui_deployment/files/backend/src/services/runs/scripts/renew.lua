-- Renews the lease of a run, unless the run was closed.
--
-- KEYS  the lease of the run; the runs of the user; the key that requests cancellation
-- ARGV  the duration of the lease in milliseconds; the name of the run
--
-- Returns whether the run is open, and whether its cancellation is requested.

local lease, runs, cancel = KEYS[1], KEYS[2], KEYS[3]
local ttl, name = tonumber(ARGV[1]), ARGV[2]

if redis.call('GET', lease) == 'closed' then
  return { 0, 0 }
end
local time = redis.call('TIME')
redis.call('SET', lease, 'held', 'PX', ttl)
redis.call('ZADD', runs, time[1] * 1000 + math.floor(time[2] / 1000) + ttl, name)
redis.call('PEXPIRE', runs, ttl * 2)
return { 1, redis.call('EXISTS', cancel) }
