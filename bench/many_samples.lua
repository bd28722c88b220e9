--- A snapshot with many CPU samples, as a literal of lupe.view_literal: the same one for the same number of stacks.
local FUNCTIONS, SHALLOW, DEEP = 3000, 12, 34

--- Stacks that share most of their callers, as those of a program do: each turns off from the one before it.
return function(stacks)
  local seed = 42
  local function random(n)
    seed = (seed * 1103515245 + 12345) % 2 ^ 31
    return math.floor(seed / 2 ^ 31 * n)
  end
  local samples, path = {}, {}
  for i = 1, stacks do
    local from, depth = 3 + random(#path), SHALLOW + random(DEEP - SHALLOW)
    path[1], path[2] = "main", "event_loop"
    for at = math.min(from, #path + 1), depth do path[at] = ("handle_%d"):format(random(FUNCTIONS)) end
    for at = #path, depth + 1, -1 do path[at] = nil end
    local stack = {}
    for at = #path, 1, -1 do stack[#stack + 1] = path[at] end
    samples[i] = { stack = stack, thread = 1, state = "user", count = 1 + random(20) }
  end
  return { profile = {
    from_ms = 0, to_ms = 60000, cpu_hz = 99, wall_hz = 20, threads = { { tid = 1, name = "main" } }, samples = samples,
  } }
end
