--- One rule's file, as the registry would take it from its folder: for commands that are given a file.
-- @module lupe.rule_file

local files = require("lupe.ffi")
local live_scripts = require("lupe.live_scripts")
local rules = require("lupe.rules")
local try_rule = require("lupe.try_rule")

local rule_file = {}

--- @return folder, and the path as the registry knows it
function rule_file.place(path)
  local folder, name = path:match("^(.*)/([^/]*)$")
  if folder == "" then folder = "/" end
  folder, name = folder or ".", name or path
  return folder, folder .. "/" .. name
end

--- Inside a task: the worker process loads the file, as ever.
-- @param host what C offers where no program runs
-- @return the registry's entry (`rule`, `source`, `path`); or nil and what is wrong, beginning with the file
function rule_file.load(host, path)
  local stat, message = files.stat(path)
  if not stat then return nil, (message:gsub("^%u+: ", "")) end
  if not path:match("%.lua$") then return nil, path .. ": a rule's file has a name that ends in .lua" end
  if path:match("%.test%.lua$") then return nil, path .. ": these are a rule's tests; give the rule's own file" end
  local folder, known_as = rule_file.place(path)
  local registry = rules.new({ { path = folder } }, function() end)
  live_scripts.new(host, registry, try_rule.of({ host = host, registry = registry }), {}):reload()
  local entry = registry.by_path[known_as]
  if not entry then return nil, registry.complaints[folder] or path .. ": it was not loaded" end
  message = entry.error or entry.clash
  if message then return nil, message:sub(1, 2) == "./" and path:sub(1, 2) ~= "./" and message:sub(3) or message end
  return entry
end

return rule_file
