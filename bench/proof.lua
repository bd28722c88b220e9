--- Leak proofs: what they find, and what they cost. One part after the other; LUPE_PROOF_PARTS picks some of them:
-- truth pause redis scan sanitizer memory undisturbed. LUPE_PROOF_ONLY is a pattern for programs of the first. What is
-- no whole run is not written down.
local PARTS = { "truth", "pause", "redis", "scan", "sanitizer", "memory", "undisturbed" }

local function chosen()
  local only = os.getenv("LUPE_PROOF_PARTS")
  if not only then return PARTS end
  local list = {}
  for name in only:gmatch("%S+") do list[#list + 1] = name end
  return list
end

return {
  partial = os.getenv("LUPE_PROOF_PARTS") ~= nil or os.getenv("LUPE_PROOF_ONLY") ~= nil,
  title = "leak proofs: what they find, and what they cost",
  run = function()
    local rows, details = {}, {}
    for _, name in ipairs(chosen()) do
      local more
      more, details[name] = require("bench.proof." .. name)()
      for _, row in ipairs(more) do rows[#rows + 1] = row end
    end
    return rows, details
  end,
}
