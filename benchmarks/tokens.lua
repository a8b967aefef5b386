-- Sends one token of a file after the other: `wrk -s tokens.lua URL -- FILE`, one token a line.
local requests, sent = {}, 0

function init(args)
  for token in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("GET", nil, { ["Authorization"] = "Bearer " .. token })
  end
end

function request()
  sent = sent % #requests + 1
  return requests[sent]
end
