-- Renews the lease of a run that its process is at work on.
--
-- KEYS  the run's lease; the user's runs; the wish to cancel it
-- ARGV  for how long, in milliseconds; its name
--
-- Returns whether the run is still open, and whether somebody wants it cancelled.

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
