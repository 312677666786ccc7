-- What the workers' user may ask of the export Orthanc: all that it takes to store a study, to read
-- it back and to withdraw it (worker/prichexy_worker/export/orthanc.py), and nothing else. It lists
-- and finds nothing, alters no setting and sends nothing on. People's users may do everything.
--
-- Orthanc calls this for each request that came with the right password, with the method and the
-- path that it is going to act on. Refused is a request with 403.

local WORKERS = {gateway = true}

local ID = '[%x%-]+'

local CALLS = {
  GET = {
    '/system',
    '/instances/' .. ID,
    '/instances/' .. ID .. '/file',
    '/instances/' .. ID .. '/simplified%-tags',
    '/studies/' .. ID,
    '/studies/' .. ID .. '/instances',
  },
  POST = {
    '/instances',
    '/tools/lookup',
  },
  DELETE = {
    '/instances/' .. ID,
    '/studies/' .. ID,
  },
}

function IncomingHttpRequestFilter(method, uri, ip, username, httpHeaders)
  if not WORKERS[username] then
    return true
  end
  for _, call in ipairs(CALLS[method] or {}) do
    if string.find(uri, '^' .. call .. '$') then
      return true
    end
  end
  return false
end
