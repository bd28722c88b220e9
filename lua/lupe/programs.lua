--- The programs that a daemon watches: each is a process that connected with all that came of it. They have nothing to
-- do with each other, so each is judged by itself.
--
-- A program: `pid` and `ticks` (of the process it began with), `key` (no other ever has it), `name`, `live`,
-- `first_ms`, `last_ms` (Unix; connected, last heard of), `left` (it said that it exits), `targets` (its processes).
-- @module lupe.programs

local programs = {}

local function newer(one, other) return not other or one.first_ms >= other.first_ms end

--- @param host of it `targets`
-- @return array of programs, those first that connected first; and the same by their keys
function programs.list(host)
  local list, by_key = {}, {}
  for _, target in ipairs(host.targets()) do
    local key = ("%d:%.0f"):format(target.root_pid, target.root_ticks)
    local program = by_key[key]
    if not program then
      program = {
        pid = target.root_pid, ticks = target.root_ticks, key = key, live = false, targets = {},
        first_ms = target.first_ms, last_ms = 0,
      }
      by_key[key], list[#list + 1] = program, program
    end
    program.targets[#program.targets + 1] = target
    program.live = program.live or target.live
    program.first_ms = math.min(program.first_ms, target.first_ms)
    program.last_ms = math.max(program.last_ms, target.last_ms)
    -- What it was at last, after what `sh -c` or `env` were before.
    local is_root = target.pid == target.root_pid
    if is_root and newer(target, program.root) then program.root = target end
  end
  for _, program in ipairs(list) do
    local shown = program.root or program.targets[1]
    program.name, program.left = shown.name, shown.left
  end
  table.sort(list, function(a, b)
    if a.first_ms ~= b.first_ms then return a.first_ms < b.first_ms end
    return a.key < b.key
  end)
  return list, by_key
end

--- The process that speaks for a program: the one that it began with, or where that has ended another one of it.
-- @param targets as the host lists them, or those of the program
-- @param root the process that it began with
-- @return a live target, or nil
function programs.first_live(targets, root)
  local first
  for _, target in ipairs(targets) do
    if target.live and target.root_pid == root and (not first or target.pid == root) then first = target end
  end
  return first
end

return programs
