--- One task at a time, in the order of asking.
-- @module lupe.turns

local async = require("lupe.async")

local turns = {}
turns.__index = turns

function turns.new() return setmetatable({ taken = false, waiting = {} }, turns) end

--- Waits for its turn. Inside a task.
function turns:take()
  if not self.taken then
    self.taken = true
  else
    async.await(function(go) self.waiting[#self.waiting + 1] = go end)
  end
end

--- Ends it. Who waits may be done at once and end its turn in turn: a loop, so that a thousand of them don't nest.
function turns:give()
  self.taken = false
  if self.giving then return end
  self.giving = true
  while not self.taken and self.waiting[1] do
    self.taken = true
    table.remove(self.waiting, 1)()
  end
  self.giving = false
end

local function given(self, ok, ...)
  self:give()
  if not ok then error((...), 0) end
  return ...
end

--- All that `body` returns, run in a turn of its own. Its error comes through. Inside a task.
function turns:run(body, ...)
  self:take()
  return given(self, pcall(body, ...))
end

return turns
