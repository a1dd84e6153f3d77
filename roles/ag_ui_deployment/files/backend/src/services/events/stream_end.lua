-- Returns the length of a stream, the number of entries that were ever added, and the id of the last one.
--
-- KEYS  the stream
--
-- XINFO STREAM itself would also send the first and the last entry.

if redis.call('EXISTS', KEYS[1]) == 0 then
  return {0, 0, '0-0'}
end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
local values = {}
for i = 1, #info, 2 do
  values[info[i]] = info[i + 1]
end
return {values['length'], values['entries-added'], values['last-generated-id']}
