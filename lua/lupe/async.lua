--- Tasks: a coroutine per request, which waits for the host without blocking the loop.
-- Thread: loop only; nothing here is parallel.
-- @module lupe.async

local async = {}

local finish_of = setmetatable({}, { __mode = "k" }) -- task -> what to call when it ends

local function step(task, ...)
  local results = { n = 0 }
  local function keep(...) results = { n = select("#", ...), ... } end
  keep(coroutine.resume(task, ...))
  if coroutine.status(task) ~= "dead" then return end
  local finish = finish_of[task]
  finish_of[task] = nil
  if results[1] then
    finish(true, unpack(results, 2, results.n))
  else
    local failure = results[2]
    finish(false, failure, type(failure) == "string" and debug.traceback(task, failure) or nil)
  end
end

--- Runs `body` as a task, at once, until it ends or waits.
-- @param body   function(...)
-- @param finish function(ok, ...): its results; or false, the error, and where the error is a string
-- its traceback
function async.spawn(body, finish, ...)
  local task = coroutine.create(body)
  finish_of[task] = finish
  step(task, ...)
end

--- Calls `start(..., callback)` and waits until the callback is called; later calls of it do nothing.
-- Only inside a task.
-- @return what the callback was given
function async.await(start, ...)
  local task = coroutine.running()
  if not task or not finish_of[task] then error("await needs a task: call it from async.spawn", 2) end
  local results, waiting
  local arguments, count = { ... }, select("#", ...)
  arguments[count + 1] = function(...)
    if results then return end
    results = { n = select("#", ...), ... }
    if waiting then step(task) end
  end
  start(unpack(arguments, 1, count + 1))
  if not results then
    waiting = true
    coroutine.yield()
  end
  return unpack(results, 1, results.n)
end

return async
