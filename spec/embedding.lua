--- Programs with lupe inside, as the specs of core/embed use them (spec/fixtures/embed_host.h).
-- @module spec.embedding

local support = require("spec.support")

local embedding = {}

--- Every status of lupe.h by its name.
embedding.STATUS = {
  OK = 0, EINVAL = 1, ENOMEM = 2, EFULL = 3, EAGAIN = 4, ECORRUPT = 5, EVERSION = 6, ENOENT = 7, EPERM = 8, EIO = 9,
  ENOSPC = 10, EINUSE = 11, ESCRIPT = 12, EUNSUPPORTED = 13,
}

local function prepared(words, options)
  local all = { support.fixture(options.program or "embed_plain"), "set listen=127.0.0.1:0" }
  for _, word in ipairs(words) do all[#all + 1] = word end
  local env = { LUPE_SOCKET = false, LUPE_CONFIG = false, LUPE_LISTEN = false, XDG_RUNTIME_DIR = options.folder }
  -- What threads hold that are not there in a forked child, or are when a program exits, is no leak.
  if not options.checks_leaks and support.sanitized then env.ASAN_OPTIONS = "detect_leaks=0:detect_odr_violation=0" end
  for name, value in pairs(options.env or {}) do env[name] = value end
  return all, { env = env, cwd = options.cwd, seconds = options.seconds or 60 }
end

--- What a program said: `lines`, and `said[WORD]` = array of { status, text }.
function embedding.parse(out)
  local said, lines = {}, {}
  for line in out:gmatch("[^\n]+") do
    lines[#lines + 1] = line
    local word, status, text = line:match("^([%w_]+) (%d+) ?(.*)$")
    if word then
      said[word] = said[word] or {}
      table.insert(said[word], { status = tonumber(status), text = text })
    end
  end
  return said, lines
end

--- Starts a program that does `words`, with a port of its own.
-- @tparam[opt] table options `program` (embed_plain), `env`, `cwd`, `folder` (of its sockets), `checks_leaks` (of a
--   program that stops lupe before it exits, by a sanitizer)
function embedding.spawn(words, options)
  local all, how = prepared(words, options or {})
  return support.spawn(all, how)
end

--- The same to its end, which must come by itself and be an exit of `options.code` (0).
-- @return what it said, by word; its lines; the process
function embedding.run(words, options)
  local all, how = prepared(words, options or {})
  local process = support.run(all, how)
  if process.code ~= (options and options.code or 0) then
    error(("ended with code %s, signal %s; said: %s%s"):format(tostring(process.code), tostring(process.signal),
      process.out, process.err), 2)
  end
  local said, lines = embedding.parse(process.out)
  return said, lines, process
end

--- The only answer to a word; an error where there is another number of them.
function embedding.one(said, word)
  local answers = said[word] or {}
  if #answers ~= 1 then error(("%d answers to %s"):format(#answers, word), 2) end
  return answers[1]
end

return embedding
