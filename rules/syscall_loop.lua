--- A function spends much of its CPU time inside system calls that don't wait: many short ones in a loop, as a rule.
-- Few long ones look the same (a copy of megabytes in one write): the advice names the call, and the function's code
-- tells which it is.
local ADVICE = {
  { "mmap", "keep what was mapped, or let the allocator keep it (a larger dirty_decay_ms)" },
  { "munmap", "keep what was mapped, or let the allocator keep it (a larger dirty_decay_ms)" },
  { "madvise", "let the allocator keep what is free for longer (a larger dirty_decay_ms)" },
  { "stat", "keep what was learned about files for a while" },
  { "open", "keep files open" },
  { "close", "keep files open" },
  { "futex", "take the lock less often, or wake all waiters at once" },
  { "poll", "take all events that are ready at once" },
  { "select", "use epoll" },
  { "send", "gather what is sent (writev, sendmmsg, MSG_MORE)" },
  { "recv", "receive into larger buffers (recvmmsg for datagrams)" },
  { "write", "buffer, and write larger blocks (writev gathers them)" },
  { "read", "read larger blocks into a buffer" },
}

local function advice_for(name)
  for _, entry in ipairs(ADVICE) do
    if name:find(entry[1], 1, true) then return entry[2] end
  end
  return "gather calls, or keep their results"
end

local function kernel_call(f)
  local most
  for _, call in ipairs(f.calls) do
    if call.kernel_ns > 0 and (not most or call.kernel_ns > most.kernel_ns) then most = call end
  end
  return most
end

return {
  api = 1,
  id = "pattern.syscall-loop",
  kind = "pattern",
  title = "A function spends much of its time in short system calls",
  version = "1",
  needs = { "cpu" },
  params = {
    min_share = { default = 0.1, min = 0, max = 1, doc = "of all CPU time, in the function's system calls" },
    min_own_share = { default = 0.5, min = 0, max = 1, doc = "of the function's own CPU time" },
    max_waiting = { default = 1, min = 0, doc = "times as long waiting for I/O; more is a slow device, no hot loop" },
    min_busy = { default = 0.1, min = 0, unit = "cores", doc = "used on average; who idles has time enough" },
    min_samples = { default = 200, min = 1, doc = "CPU samples; of 200, one in ten is 20 +- 4" },
    most_findings = { default = 3, min = 1, doc = "functions, most time in the kernel first" },
  },
  check = function(view, params)
    local profile, findings = view.profile, {}
    local lack = profile:lacks(params.min_samples, "cpu")
    if lack then return {}, lack end
    if profile.cpu_ns < params.min_busy * profile.seconds * 1e9 then return {} end
    for f in profile:functions { by = "kernel_ns", limit = 4 * params.most_findings } do
      local share, own = f.kernel_ns / profile.cpu_ns, f.kernel_ns / f.cpu_ns
      if #findings < params.most_findings and share >= params.min_share and own >= params.min_own_share
        and f.io_ns <= params.max_waiting * f.kernel_ns then
        local call = kernel_call(f)
        local name = call and call.name or "system calls"
        findings[#findings + 1] = {
          hotspot = f, score = share, verdict = "info", severity = "medium",
          summary = ("%s spends %.0f %% of its CPU time in the kernel (%s), %.0f %% of the program's"):format(f.name,
            100 * own, name, 100 * share),
          evidence = { share = share, own_share = own, call = call and call.name, kernel_seconds = f.kernel_ns / 1e9 },
          advice = { ("Make fewer calls of %s in %s: %s"):format(name, f.name, advice_for(name)) },
        }
      end
    end
    return findings
  end,
}
