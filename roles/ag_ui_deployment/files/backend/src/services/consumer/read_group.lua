-- Reads new entries for one consumer of a group. Atomically with the read, detects entries that
-- were removed from the stream before any consumer had read them (a hole).
--
-- KEYS  the stream; a hash of holes that were found and not reported yet
-- ARGV  the group; the consumer; the maximum number of entries; the bytes at which to stop; the id
--       up to which the number of read entries includes entries deleted with XDEL, '' for the
--       position of the group
--
-- Returns, with -1 for a number that Redis does not know:
--  - the position of the group before the read
--  - the holes that this consumer must report: the id before each, the number of missing entries,
--    and the first retained id after it, '' if there is none
--  - the number of other missing entries, which may all have been deleted with XDEL
--  - the entries
--  - whether these are all new entries
--  - the number of entries added up to the position after the read
--  - the number of entries after that position

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

-- Returns the number of entries missing after the position of the group, whether that is certain,
-- and the first retained id. Counts the missing entries as read.
local function find_hole(state)
  local position, read, lag = state['last-delivered-id'], state['entries-read'], state['lag']
  local length = redis.call('XLEN', stream)
  -- Redis trims in the order of ids. While an entry that the group has read is retained, no later
  -- one can have been trimmed, and the lag is less than the length.
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
  -- Redis no longer knows the counters if unread entries were deleted.
  after['entries-read'], after['lag'] = stream_state()['entries-added'], 0
end
if after['entries-read'] then
  -- Also if unchanged: otherwise Redis 7.0 does not write the number to its append-only file, and
  -- has an old one after a restart.
  set_read(after['last-delivered-id'], after['entries-read'])
end
return {
  position, holes, certain and 0 or gone, rows, is_all and 1 or 0,
  after['entries-read'] or -1, after['lag'] or -1,
}
