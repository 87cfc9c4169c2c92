-- What wrk sends for api_load.py. From the environment: OPERATION, TOKEN, ACCEPT.
local operation = os.getenv("OPERATION")
local objects = "/api/v1/namespaces/load"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("TOKEN")
wrk.headers["Accept"] = os.getenv("ACCEPT") or "application/json"

local count = 0
function setup(thread)
  thread:set("number", count)
  count = count + 1
end

local turn = 0
local makers = {}
makers["get-configmap"] = function() return wrk.format("GET", objects .. "/configmaps/map-1") end
makers["get-pod"] = function() return wrk.format("GET", objects .. "-pods/pods/pod-00001") end
makers["list-pods"] = function() return wrk.format("GET", objects .. "-pods/pods") end
makers["list-pods-gzip"] = function()
  wrk.headers["Accept-Encoding"] = "gzip"
  return wrk.format("GET", objects .. "-pods/pods")
end
makers["create-configmap"] = function()
  wrk.headers["Content-Type"] = "application/json"
  local body = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"new-","labels":{"app":"load"}},"data":{"key":"'
    .. string.rep("y", 200) .. '"}}'
  return wrk.format("POST", objects .. "-new/configmaps", nil, body)
end
-- Each patch changes its object. A thread has every second object to itself and comes back to one after 500 others.
makers["patch-configmap"] = function()
  turn = turn + 1
  wrk.headers["Content-Type"] = "application/merge-patch+json"
  local body = string.format('{"data":{"value":"%d-%d-%d"}}', number, turn, os.time())
  return wrk.format("PATCH", objects .. "/configmaps/map-" .. ((turn * 2 + number) % 1000), nil, body)
end
-- A whole new object each time, without a resourceVersion.
makers["put-configmap"] = function()
  turn = turn + 1
  wrk.headers["Content-Type"] = "application/json"
  local name = "map-" .. ((turn * 2 + number) % 1000)
  local body = string.format('{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"%s"},"data":{"key":"%s","turn":"%d-%d"}}',
    name, string.rep("y", 200), turn, os.time())
  return wrk.format("PUT", objects .. "/configmaps/" .. name, nil, body)
end
-- What controllers do: of ten requests five read one object, one reads a page, four write.
local mixed = {"get-pod", "patch-configmap", "get-configmap", "get-pod", "put-configmap",
  "get-configmap", "list-page", "patch-configmap", "get-pod", "create-configmap"}
makers["list-page"] = function() return wrk.format("GET", objects .. "/configmaps?limit=50") end
makers["mix"] = function()
  turn = turn + 1
  return makers[mixed[turn % 10 + 1]]()
end

local changing = {["patch-configmap"] = true, ["put-configmap"] = true, ["mix"] = true}
local fixed
function request()
  if changing[operation] then return makers[operation]() end
  fixed = fixed or makers[operation]()
  return fixed
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"per_second":%.1f,"p50_ms":%.3f,"p99_ms":%.3f,"bad_answers":%d,"broken_connections":%d}\n',
    summary.requests, summary.requests / (summary.duration / 1e6),
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
