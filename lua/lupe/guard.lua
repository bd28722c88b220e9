--- Who may speak to lupe from a browser: a page of another origin may not, nor one whose name was
-- made to point at the loopback address (DNS rebinding).
-- @module lupe.guard

local problem = require("lupe.problem")

local guard = {}

--- The authorities that name the address lupe listens on.
local function own_authorities(host, port)
  local names = { ["localhost"] = true, [host:find(":", 1, true) and "[" .. host .. "]" or host] = true }
  local own = {}
  for name in pairs(names) do
    own[name .. ":" .. port] = true
    if port == 80 then own[name] = true end
  end
  return own
end

--- @param headers lower-cased header names -> values
-- @param host, port where lupe listens
-- Raises a problem (403) for a foreign Host or Origin.
function guard.check(headers, host, port)
  local own = own_authorities(host, port)
  local named = headers.host
  if not named or not own[named:lower()] then
    problem.raise(403, "foreign-host", ("Host must name the address that lupe listens on (%s:%d), not %q")
      :format(host, port, (named or ""):sub(1, 100)))
  end
  local origin = headers.origin
  if origin and not own[origin:lower():match("^http://([^/]+)$") or ""] then
    problem.raise(403, "foreign-origin", ("requests from pages of another origin are refused: %q")
      :format(origin:sub(1, 100)))
  end
end

return guard
