-- For wrk: every connection asks the next of the texts (TEXTS, one a line).
local requests = {}
local next = 0

local function escaped(text)
  return (text:gsub('[%c"\\]', function(c) return string.format("\\u%04x", c:byte()) end))
end

function init()
  for line in io.lines(os.getenv("TEXTS")) do
    if line:match("%S") then
      local body = string.format(
        '{"task_type":"sentiment_analysis","model_version":"%s","data":{"text":"%s"}}',
        os.getenv("MODEL_VERSION"), escaped(line))
      requests[#requests + 1] = wrk.format("POST", "/api/infer", { ["Content-Type"] = "application/json" }, body)
    end
  end
end

function request()
  next = next % #requests + 1
  return requests[next]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format("FIGURES %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
