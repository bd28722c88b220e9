--- Read-only tables whose fields are worked out when first asked for.
-- What rules get is made of these: a rule that writes into one by mistake gets an error with its own
-- line, and cannot change what the next rule sees.
-- @module lupe.lazy

--- @tparam table makers field -> function(self) that gives its value (nil is not remembered)
-- @tparam[opt] table methods field -> value that is there from the start
-- @string what the thing's name in messages, such as "view.heap"
return function(makers, methods, what)
  local known = {}
  for name, value in pairs(methods or {}) do known[name] = value end
  return setmetatable({}, {
    __index = function(self, name)
      local value = known[name]
      if value == nil and makers[name] then
        value = makers[name](self)
        known[name] = value
      end
      return value
    end,
    __newindex = function(_, name)
      error(("%s is read-only (field '%s')"):format(what, tostring(name)), 2)
    end,
    __metatable = "read-only",
  })
end
