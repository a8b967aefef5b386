-- Asks about one token of a file after the other: `wrk -s introspection.lua URL -- FILE`. The first line of the file is
-- the Authorization header; a token stands on each of the others.
local requests, sent = {}, 0

function init(args)
  local headers = { ["Content-Type"] = "application/x-www-form-urlencoded" }
  for line in io.lines(args[1]) do
    if not headers["Authorization"] then
      headers["Authorization"] = line
    else
      requests[#requests + 1] = wrk.format("POST", nil, headers, "token_type_hint=access_token&token=" .. line)
    end
  end
end

function request()
  sent = sent % #requests + 1
  return requests[sent]
end
