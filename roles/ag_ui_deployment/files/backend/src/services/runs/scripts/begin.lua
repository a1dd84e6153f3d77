-- Begins a run: unless there is one of this name, or the user has as many as they may.
--
-- KEYS  the run's log; its lease; the user's runs, by when their leases end
--       the leases of runs that give way to it, which do not count
-- ARGV  for how long it is held, in milliseconds; how many runs a user may have; its name
--
-- Returns 'begun', 'exists' or 'full'.

local log, lease, runs = KEYS[1], KEYS[2], KEYS[3]
local ttl, most, name = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]

if redis.call('EXISTS', log, lease) > 0 then
  return 'exists'
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- The runs of processes that have died.
redis.call('ZREMRANGEBYSCORE', runs, '-inf', now)
local counting = redis.call('ZCARD', runs)
for place = 4, #KEYS do
  if redis.call('GET', KEYS[place]) == 'held' then
    counting = counting - 1
  end
end
if counting >= most then
  return 'full'
end
redis.call('SET', lease, 'held', 'PX', ttl)
redis.call('ZADD', runs, now + ttl, name)
redis.call('PEXPIRE', runs, ttl * 2)
return 'begun'
