-- Reads what is new for one consumer of a group, and finds out, in one step with that, how many
-- entries were removed from the stream before anybody had read them.
--
-- KEYS  the stream; a hash of the holes that were found and not told yet, else absent
-- ARGV  the group; the consumer; how many entries at most; at how many bytes to stop; the id up to
--       which entries deleted by hand are accounted for, '' for the group's position
--
-- Returns the position of the group before the read; the holes that this consumer has to tell, each
-- with the id before it, how many entries are missing, and the first id left after it; how many
-- entries more are missing that may all have been deleted by hand; the entries; whether they are
-- all there is; how many entries had been added up to the position after the read; and how many
-- there are behind that. -1 is a number that Redis does not know.

local stream, unreported = KEYS[1], KEYS[2]
local group, consumer = ARGV[1], ARGV[2]
local most, enough, sure = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local AT_A_TIME = 8

local function named(list)
  local values = {}
  for i = 1, #list, 2 do
    values[list[i]] = list[i + 1]
  end
  return values
end

local function group_state()
  for _, one in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local state = named(one)
    if state['name'] == group then
      return state
    end
  end
end

local function stream_state()
  return named(redis.call('XINFO', 'STREAM', stream))
end

local function is_behind(one, other)
  local ms, seq = string.match(one, '(%d+)-(%d+)')
  local other_ms, other_seq = string.match(other, '(%d+)-(%d+)')
  if ms == other_ms then
    return tonumber(seq) > tonumber(other_seq)
  end
  return tonumber(ms) > tonumber(other_ms)
end

local function set_read(position, number)
  redis.call('XGROUP', 'SETID', stream, group, position, 'ENTRIESREAD', number)
end

-- How many entries are gone behind the position of the group, whether that is certain, and the
-- first id left. From now on they count as read.
local function find_hole(state)
  local position, read, lag = state['last-delivered-id'], state['entries-read'], state['lag']
  local length = redis.call('XLEN', stream)
  -- Entries go in the order of their ids. While one that the group has read is left, none behind
  -- it can have been trimmed; and then the lag is less than the length.
  if read and lag and (lag == 0 or lag < length) then
    return 0
  end
  local info = stream_state()
  local first = length > 0 and info['recorded-first-entry-id'] or ''
  if length > 0 and not is_behind(first, position) then
    return 0
  end
  local removed = info['entries-added'] - length
  if read == removed then
    return 0
  end
  set_read(position, removed)
  local certain = not is_behind(info['max-deleted-entry-id'], sure ~= '' and sure or position)
  return read and math.max(0, removed - read) or 0, certain, first
end

local function holes_to_tell(position, gone, first)
  if gone > 0 then
    redis.call('HSET', unreported, position, cjson.encode({consumer, gone, first}))
  end
  local holes = {}
  local fields = redis.call('HGETALL', unreported)
  for i = 1, #fields, 2 do
    local hole = cjson.decode(fields[i + 1])
    if hole[1] == consumer then
      holes[#holes + 1] = {fields[i], hole[2], hole[3]}
    end
  end
  return holes
end

local function read_new()
  local rows, bytes = {}, 0
  while #rows < most and bytes < enough do
    local count = math.min(AT_A_TIME, most - #rows)
    local answer = redis.call(
      'XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', stream, '>')
    local entries = answer and answer[1][2] or {}
    for _, entry in ipairs(entries) do
      rows[#rows + 1] = entry
      for _, text in ipairs(entry[2]) do
        bytes = bytes + #text
      end
    end
    if #entries < count then
      return rows, true
    end
  end
  return rows, false
end

local before = group_state()
if not before then
  return redis.error_reply('NOGROUP There is no such group')
end
local position = before['last-delivered-id']
local gone, certain, first = find_hole(before)
local holes = holes_to_tell(position, certain and gone or 0, first)
local rows, is_all = read_new()
local after = group_state()
if is_all and after['lag'] ~= 0 then
  -- Redis loses count where unread entries were deleted.
  after['entries-read'], after['lag'] = stream_state()['entries-added'], 0
end
if after['entries-read'] then
  -- Not only where it has changed: Redis 7.0 does not write it to its append-only file otherwise,
  -- and has an old number after a restart.
  set_read(after['last-delivered-id'], after['entries-read'])
end
return {
  position, holes, certain and 0 or gone, rows, is_all and 1 or 0,
  after['entries-read'] or -1, after['lag'] or -1,
}
