--- The leak proofs in the report at exit: one paragraph, and a line for each function that lost memory.
-- @module lupe.proof_text

local fit = require("lupe.page").fit
local format = require("lupe.format")

local INDENT, MOST_SITES = 2, 5
local RECENT_SECONDS = 5
local WHY_NOT = { refused = "refused: ", gave_up = "given up: ", complete = "not of all: " }

--- When it was, counted from the report's figures.
local function when(proof)
  if not proof.age_seconds or proof.age_seconds < RECENT_SECONDS then return "at the end" end
  return format.duration(proof.age_seconds * 1000) .. " before the end"
end

local function cost(proof)
  local pause, read = 0, 0
  for _, target in ipairs(proof.targets) do
    pause, read = math.max(pause, target.pause_ms or 0), read + (target.read_bytes or 0)
  end
  return ("stopped for %.1f ms at most, %s read"):format(pause, format.bytes(read))
end

local function found(proof)
  if proof.unreachable_objects == 0 then return "something points to every object: nothing is lost" end
  return ("nothing was found that points to %s in %s"):format(format.bytes(proof.unreachable_bytes),
    format.plural(proof.unreachable_objects, "object"))
end

local function one_site(site, room)
  local text = ("%s, %s: %s in %s or more, %s of what lives there"):format(fit(site.component, room), site.state,
    format.estimate(site.lost_bytes, site.lost_bytes_error), format.plural(site.groups, "structure"),
    format.percent(100 * site.share))
  if site.state == "proven" and site.proven_bytes < site.lost_bytes then
    text = ("%s; %s of that is proven"):format(text, format.bytes(site.proven_bytes))
  end
  return site.reasons[1] and text .. "; " .. site.reasons[1] or text
end

local function title_of(proof, processes)
  local proved, profiled = #proof.targets, 0
  for _, process in ipairs(processes) do profiled = profiled + (process.reason and 0 or 1) end
  if proved >= profiled then return "Leak proof" end
  return ("Leak proof of %d of %d processes"):format(proved, profiled)
end

--- @param out lupe.page
-- @param proof of lupe.proof_report, or nil
-- @param processes all that there were: those with a `reason` have no heap profile
return function(out, proof, processes)
  if not proof then return end
  out:heading(title_of(proof, processes), proof.unreachable_bytes and when(proof) or nil)
  local margin = (" "):rep(INDENT)
  if proof.unreachable_bytes then
    out:paragraph(margin, found(proof) .. (proof.status == "complete" and "; " .. cost(proof) or ""))
  end
  if proof.reason then
    local head = WHY_NOT[proof.status]
    if proof.status ~= "complete" and proof.unreachable_bytes then head = "the newest was " .. head end
    out:paragraph(margin, head .. proof.reason, "warn")
  end
  local told = 0
  for _, site in ipairs(proof.sites) do
    if site.unreachable > 0 and told < MOST_SITES then
      told = told + 1
      out:paragraph(margin .. "- ", one_site(site, out.width - #margin - 20))
    end
  end
end
