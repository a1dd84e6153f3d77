-- Reads new entries for one consumer of a group. Atomically with the read, detects entries that
-- were removed from the stream before any consumer had read them.
--
-- KEYS  the stream; a hash of ranges of removed entries that are not reported yet
-- ARGV  the group; the consumer; the maximum number of entries; the bytes at which to stop; the id
--       up to which the number of read entries includes entries deleted with XDEL, '' for the
--       position of the group
--
-- Returns, with -1 for a number that Redis does not know:
--  - the position of the group before the read
--  - the ranges that this consumer must report: the id before each, the number of missing entries,
--    and the first retained id after it, '' if there is none
--  - the number of other missing entries, which may all have been deleted with XDEL
--  - the entries
--  - whether these are all new entries
--  - the number of entries added up to the position after the read
--  - the number of entries after that position

local stream, unreported = KEYS[1], KEYS[2]
local group, consumer = ARGV[1], ARGV[2]
local max_entries, max_bytes, confirmed_until = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local ENTRIES_PER_READ = 8

local function to_table(list)
  local values = {}
  for i = 1, #list, 2 do
    values[list[i]] = list[i + 1]
  end
  return values
end

local function group_state()
  for _, fields in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local state = to_table(fields)
    if state['name'] == group then
      return state
    end
  end
end

local function stream_state()
  return to_table(redis.call('XINFO', 'STREAM', stream))
end

local function is_after(id, other)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
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
local function find_missing(state)
  local position, read, lag = state['last-delivered-id'], state['entries-read'], state['lag']
  local length = redis.call('XLEN', stream)
  -- Redis trims in the order of ids. While an entry that the group has read is retained, no later
  -- one can have been trimmed, and the lag is less than the length.
  if read and lag and (lag == 0 or lag < length) then
    return 0
  end
  local info = stream_state()
  local first = length > 0 and info['recorded-first-entry-id'] or ''
  if length > 0 and not is_after(first, position) then
    return 0
  end
  local removed = info['entries-added'] - length
  if read == removed then
    return 0
  end
  set_read(position, removed)
  local until_id = confirmed_until ~= '' and confirmed_until or position
  local certain = not is_after(info['max-deleted-entry-id'], until_id)
  return read and math.max(0, removed - read) or 0, certain, first
end

local function unreported_ranges(position, missing, first)
  if missing > 0 then
    redis.call('HSET', unreported, position, cjson.encode({consumer, missing, first}))
  end
  local ranges = {}
  local fields = redis.call('HGETALL', unreported)
  for i = 1, #fields, 2 do
    local range = cjson.decode(fields[i + 1])
    if range[1] == consumer then
      ranges[#ranges + 1] = {fields[i], range[2], range[3]}
    end
  end
  return ranges
end

local function read_new()
  local rows, bytes = {}, 0
  while #rows < max_entries and bytes < max_bytes do
    local count = math.min(ENTRIES_PER_READ, max_entries - #rows)
    local response = redis.call(
      'XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', stream, '>')
    local entries = response and response[1][2] or {}
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
local missing, certain, first = find_missing(before)
local ranges = unreported_ranges(position, certain and missing or 0, first)
local rows, reached_end = read_new()
local after = group_state()
if reached_end and after['lag'] ~= 0 then
  -- Redis no longer knows the counters if unread entries were deleted.
  after['entries-read'], after['lag'] = stream_state()['entries-added'], 0
end
if after['entries-read'] then
  -- Also if unchanged: otherwise Redis 7.0 does not write the number to its append-only file, and
  -- has an old one after a restart.
  set_read(after['last-delivered-id'], after['entries-read'])
end
return {
  position, ranges, certain and 0 or missing, rows, reached_end and 1 or 0,
  after['entries-read'] or -1, after['lag'] or -1,
}
