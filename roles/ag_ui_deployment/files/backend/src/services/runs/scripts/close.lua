-- Ends a run whose process has died: unless it has shown itself, or the log has grown meanwhile.
--
-- KEYS  the run's log; its lease; the user's runs
-- ARGV  for how many seconds to keep the log; how many records the caller has seen; the run's name;
--       the records that end it
--
-- Returns whether it was ended here.

local log, lease, runs = KEYS[1], KEYS[2], KEYS[3]
local keep, seen, name = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]

if redis.call('EXISTS', lease) == 1 or redis.call('XLEN', log) > seen then
  return 0
end
redis.call('SET', lease, 'closed', 'EX', keep)
for place = 4, #ARGV do
  redis.call('XADD', log, (seen + place - 3) .. '-0', 'd', ARGV[place])
end
redis.call('EXPIRE', log, keep)
redis.call('ZREM', runs, name)
return 1
