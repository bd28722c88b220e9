--- The machine that a figure was measured on.
local support = require("spec.support")

local PACKAGES = {
  "libc6", "libjemalloc2", "libluajit-5.1-2", "libuv1", "libmicrohttpd12", "libelf1", "redis-server",
}

local function output(command)
  local pipe = assert(io.popen(command .. " 2>/dev/null"))
  local text = pipe:read("*a"):gsub("%s+$", "")
  pipe:close()
  return text ~= "" and text or nil
end

local function kernel_hz()
  local text = output("zcat /proc/config.gz | grep '^CONFIG_HZ='")
    or output("grep '^CONFIG_HZ=' /boot/config-$(uname -r)")
  return text and tonumber(text:match("%d+")) or support.json.null
end

return function()
  local versions = {}
  for _, name in ipairs(PACKAGES) do
    versions[name] = output("dpkg-query -W -f '${Version}' " .. name) or support.json.null
  end
  local memory = support.read_file("/proc/meminfo"):match("MemTotal:%s+(%d+)")
  return {
    cpu = support.read_file("/proc/cpuinfo"):match("model name%s*:%s*([^\n]*)") or output("uname -m"),
    cores = tonumber(output("nproc")),
    memory_mb = math.floor(tonumber(memory) / 1024),
    kernel = output("uname -r"),
    config_hz = kernel_hz(),
    compiler = output("cc -dumpfullversion"),
    packages = versions,
    commit = output("git rev-parse --short HEAD") or support.json.null,
    load_average = tonumber(support.read_file("/proc/loadavg"):match("^%S+")),
  }
end
