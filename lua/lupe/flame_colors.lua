--- What colour a frame has. The same name always has the same one, so that two pictures can be compared.
-- @module lupe.flame_colors

local bit = require("bit")

local attribution = require("lupe.attribution")

local flame_colors = {}

local SYSTEM = { "^libm%.", "^libstdc%+%+%.", "^libgcc_s%." }

local function of_system(module)
  for _, pattern in ipairs(SYSTEM) do
    if module:find(pattern) then return true end
  end
  return attribution.passed_over(module)
end

--- 0..1, from the name alone.
local function hash(name)
  local h = 0
  for i = 1, #name do h = bit.tobit(h * 31 + name:byte(i)) end
  return bit.band(h, 0xffff) / 0xffff
end

--- "#rrggbb" of hue, saturation and lightness (0..1).
local function rgb(hue, saturation, lightness)
  local function channel(n)
    local k = (n + hue * 12) % 12
    local value = lightness - saturation * math.min(lightness, 1 - lightness)
      * math.max(-1, math.min(k - 3, 9 - k, 1))
    return math.floor(255 * value + 0.5)
  end
  return ("#%02x%02x%02x"):format(channel(0), channel(8), channel(4))
end

--- The program's own frames are warm, those of the system's libraries blue, the allocator's green; what is inlined
-- is paler.
function flame_colors.of(name, module, inlined)
  local h = hash(name)
  local lightness = 0.62 + 0.08 * h + (inlined and 0.1 or 0)
  if attribution.allocates(name, module) then return rgb(0.36 + 0.06 * h, 0.42, lightness) end
  if of_system(module) then return rgb(0.57 + 0.04 * h, 0.45, lightness) end
  return rgb(0.02 + 0.11 * h, 0.82, lightness)
end


--- Of a difference: red where the share of the whole grew, blue where it shrank, the stronger the more.
-- @tparam number now share 0..1
-- @tparam number before share 0..1
function flame_colors.of_difference(now, before)
  local change = now - before
  local most = math.max(now, before)
  local strength = most > 0 and math.min(1, math.abs(change) / most) or 0
  if math.abs(change) < 1e-9 then return "#e8e4de" end
  return rgb(change > 0 and 0.0 or 0.6, 0.75, 0.92 - 0.32 * strength)
end

return flame_colors
