--- The slowest twentieth of a span takes longer than promised.
local NS_PER_MS = 1e6

return {
  api = 1, id = "alert.slow-span", kind = "alert", needs = { "spans" },
  title = "A span takes longer than promised",
  params = {
    span = { default = "request", doc = "its name" },
    p95 = { default = 100, min = 0, unit = "ms", doc = "19 of 20 are to be no slower" },
    min_count = { default = 100, min = 1, doc = "of fewer, a twentieth says nothing" },
  },
  check = function(view, params)
    local span = view.spans:named(params.span)
    if not span then return {} end
    if span.count < params.min_count then
      local each = span.per_second or 0
      return {}, each > 0 and { needed_seconds = params.min_count / each } or nil
    end
    local p95 = span.p95_ns / NS_PER_MS
    if p95 <= params.p95 then return {} end
    return {
      {
        score = p95 - params.p95, severity = p95 > 2 * params.p95 and "high" or "medium",
        summary = ("One of 20 %ss takes longer than %s; promised are %s"):format(span.name, words.duration(p95),
          words.duration(params.p95)),
        evidence = {
          p50_ms = span.p50_ns / NS_PER_MS, p95_ms = p95, p99_ms = span.p99_ns / NS_PER_MS,
          max_ms = span.max_ns / NS_PER_MS, count = span.count,
        },
      },
    }
  end,
}
