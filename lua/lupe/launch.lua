--- The environment that a program is started in: what is preloaded, and what jemalloc is told.
-- What the user set stays; lupe's own is appended, and every contradiction is said in words.
-- @module lupe.launch

local launch = {}

-- jemalloc takes the last of two contradicting options, so what lupe needs stands at the end.
-- Each: the option, the value lupe needs, and why.
local NEEDED = {
  { "prof", "true", "heap profiling cannot be switched on later" },
  { "prof_active", "false", "lupe switches sampling on itself, once its own unwinder is in place" },
}
-- Only where the user says otherwise: these are jemalloc's defaults already.
local DEFENDED = {
  { "prof_thread_active_init", "true", "without it no thread is sampled" },
  { "prof_accum", "false", "it never frees a stack, and lupe counts allocations by itself" },
  { "prof_unbias", "true", "lupe's correction of the samples builds on it" },
}

local OTHER_ALLOCATORS = { "tcmalloc", "mimalloc", "hoard", "libasan", "rpmalloc", "snmalloc", "scudo" }

--- jemalloc's own grammar: `key:value` pairs with commas between; it stops at the first mistake.
-- @return the well-formed part, a table of its options, and what could not be understood (or nil)
local function parse_conf(text)
  local options, position, good_end = {}, 1, 0
  while position <= #text do
    local key, value, after = text:match("^([%w_]+):([^,]*)()", position)
    if not key then return text:sub(1, good_end), options, text:sub(position) end
    options[key], good_end = value, after - 1
    position = after + 1
  end
  return text:sub(1, good_end), options
end

local function size_words(bytes)
  if bytes >= 2 ^ 20 then return ("%.14g MiB"):format(bytes / 2 ^ 20) end
  if bytes >= 1024 then return ("%.14g KiB"):format(bytes / 1024) end
  return ("%.14g bytes"):format(bytes)
end

--- Which exponent jemalloc is to sample at, and whose wish that is.
local function sample_exponent(config, options, warnings)
  local wanted = config.sample_bytes
  local exponent = math.floor(math.log(wanted) / math.log(2) + 0.5)
  local explicit = config.sources.sample_bytes ~= "default"
  local theirs = options.lg_prof_sample
  if theirs and theirs:match("^%d%d?$") and tonumber(theirs) < 64 then
    theirs = tonumber(theirs)
    if not explicit then
      warnings[#warnings + 1] = ("MALLOC_CONF sets lg_prof_sample:%d, so one sample is taken per %s; lupe keeps that")
        :format(theirs, size_words(2 ^ theirs))
      return theirs
    end
    if theirs ~= exponent then
      warnings[#warnings + 1] = ("MALLOC_CONF sets lg_prof_sample:%d, but the sample size given to lupe wins: %s")
        :format(theirs, size_words(2 ^ exponent))
    end
  end
  if 2 ^ exponent ~= wanted then
    warnings[#warnings + 1] = ("jemalloc samples by powers of two: %s becomes %s")
      :format(size_words(wanted), size_words(2 ^ exponent))
  end
  return exponent
end

local function malloc_conf(config, theirs, warnings)
  local kept, options, broken = parse_conf(theirs)
  if broken then
    warnings[#warnings + 1] = ("MALLOC_CONF is malformed from %q on, where jemalloc stops reading; lupe omits that")
      :format(broken)
  end
  local parts = {}
  local function add(option, value) parts[#parts + 1] = option .. ":" .. value end
  local function overrule(option, value, why)
    warnings[#warnings + 1] = ("MALLOC_CONF sets %s:%s; lupe needs %s:%s and appends it: %s")
      :format(option, options[option], option, value, why)
  end

  for _, need in ipairs(NEEDED) do
    local option, value, why = need[1], need[2], need[3]
    if options[option] and options[option] ~= value then overrule(option, value, why) end
    add(option, value)
  end
  for _, need in ipairs(DEFENDED) do
    local option, value, why = need[1], need[2], need[3]
    if options[option] and options[option] ~= value then
      overrule(option, value, why)
      add(option, value)
    end
  end
  local exponent = sample_exponent(config, options, warnings)
  add("lg_prof_sample", tostring(exponent))
  local ours = table.concat(parts, ",")
  return kept == "" and ours or kept .. "," .. ours, 2 ^ exponent
end

local function preload_list(theirs)
  local list = {}
  for word in theirs:gmatch("[^%s:]+") do list[#list + 1] = word end
  return list
end

local function base_name(path) return path:match("[^/]*$") end

--- The user's libraries first, then jemalloc (unless one is there already), the agent last.
local function preload(config, theirs, paths, warnings)
  local list = {}
  for _, library in ipairs(preload_list(theirs)) do -- set twice, it is still one agent
    if library ~= paths.agent then list[#list + 1] = library end
  end
  local has_jemalloc = false
  for _, library in ipairs(list) do
    local name = base_name(library)
    if name:find("jemalloc", 1, true) then has_jemalloc = true end
    for _, other in ipairs(OTHER_ALLOCATORS) do
      if name:find(other, 1, true) and config.allocator == "jemalloc" then
        warnings[#warnings + 1] = ("LD_PRELOAD holds %s, an allocator of its own that comes before jemalloc: "
          .. "the heap will not be profiled unless it is taken out"):format(library)
      end
    end
  end
  if config.allocator == "jemalloc" and not has_jemalloc then
    if paths.jemalloc then
      list[#list + 1] = paths.jemalloc
    else
      warnings[#warnings + 1] = "libjemalloc.so.2 was not found, so the heap is profiled only if the program brings "
        .. "jemalloc itself; Debian has it in the package libjemalloc2"
    end
  end
  list[#list + 1] = paths.agent
  return table.concat(list, ":")
end

--- What to change in the environment of the program.
-- @param config the effective configuration
-- @param env    what the user's environment holds: { MALLOC_CONF =, LD_PRELOAD = }, nil where unset
-- @param paths  { agent =, socket =, jemalloc = or nil }: absolute paths
-- @return { set = { NAME = value }, warnings = { text... }, sample_bytes = number or nil };
-- or nil and a message when the agent cannot be preloaded at all
function launch.environment(config, env, paths)
  local warnings, set = {}, {}
  if not config.enable_profiling then
    return { set = set, warnings = { "profiling is disabled (ENABLE_PROFILING=false): the command runs unprofiled" } }
  end
  for _, path in ipairs({ paths.agent, paths.jemalloc }) do
    if path:find("[%s:$]") then
      return nil, ("%s: the loader cannot preload a library whose path holds a blank, ':' or '$'"):format(path)
    end
  end
  local sample_bytes
  if config.allocator == "jemalloc" then
    set.MALLOC_CONF, sample_bytes = malloc_conf(config, env.MALLOC_CONF or "", warnings)
    set.LUPE_SAMPLE_BYTES = ("%.0f"):format(sample_bytes)
  end
  set.LD_PRELOAD = preload(config, env.LD_PRELOAD or "", paths, warnings)
  set.LUPE_SOCKET = paths.socket
  set.LUPE_ALLOCATOR = config.allocator
  return { set = set, warnings = warnings, sample_bytes = sample_bytes }
end

return launch
