-- The load that wrk makes: 1,000 keys in turn. The arguments are the part of the
-- target before the key, and "close" for a new connection for each hit. The line
-- RESULT has the figures for the bench, with times in microseconds.
local requests, at = {}, 0

function init(args)
	if args[2] == "close" then
		wrk.headers["Connection"] = "close"
	end
	for i = 1, 1000 do
		requests[i] = wrk.format("GET", args[1] .. "article-" .. i)
	end
end

function request()
	at = at % 1000 + 1
	return requests[at]
end

function done(summary, latency)
	local e = summary.errors
	io.write(string.format("RESULT %d %d %d %d %d\n", summary.requests, summary.duration,
		latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
