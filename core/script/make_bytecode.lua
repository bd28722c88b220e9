-- make_bytecode.lua -- at build time: compiles lupe's own Lua, for core/script/bytecode.c, which declares the format.
-- Run as: luajit make_bytecode.lua OUT LUA_DIR FILE...
local ffi = require("ffi")
local bit = require("bit")

local out, root = arg[1], arg[2]
local NAME_BYTES, VERSION_BYTES, ENTRY_BYTES = 64, 64, 64 + 8 + 4 + 4

local function u32(value)
  return string.char(bit.band(value, 255), bit.band(bit.rshift(value, 8), 255), bit.band(bit.rshift(value, 16), 255),
    bit.band(bit.rshift(value, 24), 255))
end

local function padded(text, bytes)
  assert(#text < bytes, text)
  return text .. ("\0"):rep(bytes - #text)
end

local function hash_of(text) -- FNV-1a
  local hash = 0xcbf29ce484222325ULL
  for i = 1, #text do hash = bit.bxor(hash, text:byte(i)) * 0x100000001b3ULL end
  return ffi.string(ffi.new("uint64_t[1]", hash), 8)
end

local modules = {}
for i = 3, #arg do
  local name = assert(arg[i]:sub(#root + 2):match("^(.*)%.lua$"), arg[i]):gsub("/", ".")
  local file = assert(io.open(arg[i], "rb"))
  local text = file:read("*a")
  file:close()
  -- The name of a chunk is put in when it is loaded: the tree may have been moved.
  local code = string.dump(assert(loadstring(text, "=x")))
  assert(code:sub(1, 3) == "\27LJ" and code:byte(5) < 128 and code:sub(6, 8) == "\2=x", "another form of bytecode")
  modules[#modules + 1] = { name = name, hash = hash_of(text), code = code:sub(1, 5) .. code:sub(9) }
end
table.sort(modules, function(a, b) return a.name < b.name end)

local parts = { "LUPEBC01", u32(#modules), u32(0), padded(jit.version, VERSION_BYTES) }
local at = 16 + VERSION_BYTES + #modules * ENTRY_BYTES
for _, module in ipairs(modules) do
  parts[#parts + 1] = padded(module.name, NAME_BYTES) .. module.hash .. u32(at) .. u32(#module.code)
  at = at + #module.code
end
for _, module in ipairs(modules) do parts[#parts + 1] = module.code end
local file = assert(io.open(out, "wb"))
assert(file:write(table.concat(parts)))
assert(file:close())
