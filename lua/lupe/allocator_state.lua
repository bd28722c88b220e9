--- What jemalloc tells of the processes of the run beside its sums: pages kept, arenas, settings.
-- @module lupe.allocator_state

local SUMMED = { "dirty_bytes", "muzzy_bytes", "arena_count" }

--- @param host the host
-- @param[opt] pid of one process, else of all live ones: pages and arenas summed, settings of the first
-- @param[opt] root of the processes of one program alone: the one that it began with
-- @return a table as the host's `allocator` gives it; nil where none of them tells anything
return function(host, pid, root)
  if pid then return (host.allocator(pid)) end
  local sum
  for _, target in ipairs(host.targets()) do
    local state = target.live and (not root or target.root_pid == root) and host.allocator(target.pid)
    if state and sum then
      for _, field in ipairs(SUMMED) do sum[field] = sum[field] + state[field] end
    end
    sum = sum or state
  end
  return sum or nil
end
