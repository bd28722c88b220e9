-- Tables, strings and closures come and go, and all that is kept has a limit. Nothing is lost.
-- usage: tables.lua SECONDS
local until_s = os.time() + tonumber(arg[1])
local kept, by_user, serial = {}, {}, 0

local function session(user)
  local seen = {}
  return { user = user, seen = seen, note = function(what) seen[#seen + 1] = what end }
end

while os.time() < until_s do
  for _ = 1, 2000 do
    serial = serial + 1
    local one = session("user " .. serial % 5000)
    one.note(("page %d;"):format(serial):rep(3))
    kept[serial % 3000] = one
    local old = by_user[one.user]
    if old then kept[serial % 7] = old end
    by_user[one.user] = one
  end
end
print(#kept)
