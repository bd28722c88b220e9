--- Who calls a function, by the names of a stack, the function itself first.
-- @module lupe.callers

local begins_thread = require("lupe.attribution").begins_thread

local callers = {}

--- Its callers, nearest first, without what lies beyond main or a thread's first function: libc's start.
function callers.list(stack)
  local list = {}
  for i = 2, #stack do
    if begins_thread(stack[i], true, true) then break end
    list[#list + 1] = stack[i]
    if stack[i] == "main" then break end
  end
  return list
end

--- " < caller < its caller", as many as fit into so many columns; of those without a name only the module, once.
function callers.chain(stack, columns)
  local text, before = "", nil
  for _, frame in ipairs(callers.list(stack)) do
    local shown = frame:match("^(.+)%+0x%x+$") or frame
    if shown ~= before then
      if #text + 3 + #shown > columns then break end
      text = text .. " < " .. shown
    end
    before = shown
  end
  return text
end

return callers
